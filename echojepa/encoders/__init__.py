"""Frozen encoders behind one protocol.

frozen.py   the protocol: what an encoder wants to see, and what it gives
ours.py     encoders of this package, exported or with random weights
"""
