"""Frozen encoders behind one protocol.

frozen.py   the protocol: what an encoder wants to see, and what it gives
source.py   what the settings of all kinds share; a network as a frozen encoder
ours.py     encoders of this package, exported or with random weights
"""
