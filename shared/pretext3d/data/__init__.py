"""Data: cases from folders and data lists, checks of volumes, splits, caching."""
