"""Every email as it would be, on made-up tokens: to be looked at, and to be tried on a relay and on spam filters."""
