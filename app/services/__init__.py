"""What the page does, without the page."""
