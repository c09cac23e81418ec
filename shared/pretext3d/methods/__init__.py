"""The paper methods, one folder each: pretext.py holds targets, heads, loss, metrics; figure.py the picture."""
