"""Rubik's cube recovery (Zhuang et al., MICCAI 2019)."""
