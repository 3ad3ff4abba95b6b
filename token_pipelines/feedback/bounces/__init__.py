"""Delivery reports (bounces): reading mailboxes, parsing reports, recording them in the ledger."""
