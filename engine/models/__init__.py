"""Base models, adapters and policies."""
