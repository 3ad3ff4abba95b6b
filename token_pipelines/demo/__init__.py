"""Everything the demo needs and the product does not: a Postgres server, a sample registry, an inbox."""
