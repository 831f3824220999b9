"""The SQLite database and its exports."""
