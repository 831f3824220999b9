"""Responses sampled once, and estimates from them at every λ."""
