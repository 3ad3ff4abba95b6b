"""The ledger: which notices were planned, sent, skipped and refused. The Postgres constraints keep the promise."""
