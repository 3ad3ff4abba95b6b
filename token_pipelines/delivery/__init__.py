"""Sends what the ledger has planned: claim, resolve, write, send, record. ``tier`` has the order."""
