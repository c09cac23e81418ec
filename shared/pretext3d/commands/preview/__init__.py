"""`pretext3d preview`: pictures of what a network sees and must predict."""
