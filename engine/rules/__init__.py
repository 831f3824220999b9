"""Rules that combine policies' distributions."""
