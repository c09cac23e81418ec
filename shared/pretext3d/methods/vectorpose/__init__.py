"""VectorPOSE (Zhang et al., ISBI 2023)."""
