"""The operator's database: what a query must return, and how it is read. Reads only."""
