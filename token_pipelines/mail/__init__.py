"""From facts about tokens to an accepted message: rendering, message (serialiser), transport.

Knows nothing of the ledger, the source or Dagster; ``delivery`` brings them together.
"""
