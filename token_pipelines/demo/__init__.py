"""Everything that only the demo needs: a Postgres server, a sample registry, an inbox."""
