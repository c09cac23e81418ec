"""Packed bundles: their archives, the index of a folder of them, and their download."""
