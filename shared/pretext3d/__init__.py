"""Pretext tasks that pre-train 3D medical-imaging networks without labels, as MONAI components."""

__version__ = "0.1.0"
