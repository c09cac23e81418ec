"""The command `probe`: what frozen features know of classes, with few labels and many."""
