"""The command `doctor`: what a pre-training run has learned, and whether labelled data fit it."""
