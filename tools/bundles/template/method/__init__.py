"""Example method (authors, venue, year)."""
