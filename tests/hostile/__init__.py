"""Hostile clients against the real app: `python -m tests.hostile`. Minutes long, so that pytest does not collect it."""
