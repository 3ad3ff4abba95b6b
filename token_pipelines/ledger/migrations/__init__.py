"""Alembic's home: the ledger's schema, step by step."""
