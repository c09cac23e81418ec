"""Exemplar networks (Taleb et al., NeurIPS 2020)."""
