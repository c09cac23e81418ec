"""The paper methods, one folder each: pretext.py has targets, heads, loss, metrics; figure.py the picture."""
