"""Stands in for torchvision where none fits the installed torch; MONAI Label asks for no more than `utils`."""
