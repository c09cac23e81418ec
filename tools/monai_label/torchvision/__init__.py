"""Stands in for torchvision where none fits the torch that is there; MONAI Label needs `utils` alone."""
