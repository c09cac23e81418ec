"""What users type: `pretext3d NAME ...`, also as `python -m pretext3d NAME ...`."""
