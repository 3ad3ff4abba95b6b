"""Tries the operator's source query and explains what the pipeline understands of it."""
