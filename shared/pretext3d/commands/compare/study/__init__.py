"""A study of `pretext3d compare`: pre-training, screening, confirmation and report from one file."""
