"""Turns facts about tokens into the bytes of a message: rendering, names, dates, MIME, DKIM.

Knows nothing of SMTP, the ledger or the source.
"""
