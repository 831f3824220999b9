"""Comparisons of mixtures and methods."""
