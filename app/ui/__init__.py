"""The page's components."""
