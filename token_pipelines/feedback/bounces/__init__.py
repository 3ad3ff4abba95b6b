"""Delivery reports (bounces): where they lie, what they say, what the ledger keeps of them."""
