"""Transforms that two methods or more use: pure functions, and thin dictionary transforms over them."""
