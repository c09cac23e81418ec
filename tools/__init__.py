"""What maintainers use."""
