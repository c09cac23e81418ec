"""Relative patch location (Taleb et al., NeurIPS 2020)."""
