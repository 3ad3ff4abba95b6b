"""Every email, rendered on made-up tokens: to look at, and to send through the relay and spam filters as a test."""
