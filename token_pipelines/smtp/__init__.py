"""From a message to an outcome: connections to the relay, the SMTP session, replies, the rate.

Does not depend on templates, the ledger or the source.
"""
