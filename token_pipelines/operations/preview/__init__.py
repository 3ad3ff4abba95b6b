"""Every kind of email, about made-up tokens: to look at, and to try with a relay and with spam filters."""
