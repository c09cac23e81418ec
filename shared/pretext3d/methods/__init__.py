"""The paper methods, one file each: targets, heads, losses, metrics."""
