"""Continuous batching: from a request to its completion."""
