"""`pretext3d shapes`: automatically generated volumes with labels as files."""
