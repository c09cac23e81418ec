"""The template of every bundle: a new one made from it, the common blocks of all kept the same."""
