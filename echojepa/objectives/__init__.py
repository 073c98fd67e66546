"""What is learnt, behind one seam.

objective.py       START HERE: what an objective must give, and nothing more
kinds.py           those that a config may name
jepa.py            predict the target's features of hidden tokens
masks.py           which tokens are hidden, keyed by (seed, s)
mask_geometry.py   blocks on a grid, made equal in count
distance.py        how far visible tokens are from hidden ones
target.py          the moving average of an encoder
"""
