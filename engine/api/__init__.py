"""HTTP routes of an engine."""
