"""From a message to an outcome: connections to the relay, the SMTP session, replies, the rate.

Knows nothing of templates, the ledger or the source.
"""
