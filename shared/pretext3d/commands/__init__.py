"""The users' commands: `pretext3d NAME ...`, also as `python -m pretext3d NAME ...`."""
