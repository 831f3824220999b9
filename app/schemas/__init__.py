"""What the page, links and the database exchange."""
