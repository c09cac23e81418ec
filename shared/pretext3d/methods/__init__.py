"""The paper methods, one folder each: pretext.py holds targets, heads, loss and metrics; figure.py the picture."""
