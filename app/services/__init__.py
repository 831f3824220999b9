"""Services of the page that do not depend on its components."""
