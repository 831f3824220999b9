"""Charts and tables of the page."""
