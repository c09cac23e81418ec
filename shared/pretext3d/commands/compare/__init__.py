"""`pretext3d compare`: does pre-training help on these data?"""
