"""Routes and deployment."""
