"""Tell the owners of expiring tokens in good time, once per step of urgency."""
