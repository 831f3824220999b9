"""Data models exchanged by the page, links and the database."""
