"""`pretext3d promote`: a fine-tuned run becomes a bundle that can be deployed."""
