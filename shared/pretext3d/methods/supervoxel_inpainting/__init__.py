"""ROI-guided supervoxel in-painting (Kayal et al., MICCAI 2020)."""
