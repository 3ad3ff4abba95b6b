"""The ledger: which notices were planned, sent, skipped and refused. Constraints in Postgres prevent duplicates."""
