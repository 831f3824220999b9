"""Banks: responses that are sampled once, and estimates from them at any λ."""
