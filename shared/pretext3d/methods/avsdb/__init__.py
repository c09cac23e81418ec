"""AVS-DB: pre-training on automatically generated volumetric shapes (Tadokoro et al., CVPRW 2023)."""
