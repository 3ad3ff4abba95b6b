"""The only code that knows Dagster: assets, checks, schedule, sensor, storage. Decides nothing about tokens."""
