"""Contrastive predictive coding in 3D and 2D (Taleb et al., NeurIPS 2020)."""
