"""Frozen encoders behind one protocol.

frozen.py     the protocol: what an encoder wants to see, and what it gives
source.py     what the settings of all kinds share; a network as a frozen encoder
ours.py       encoders of this package, exported or with random weights
pixels.py     resizing and normalising, for encoders of other people
panecho.py    PanEcho: one vector per clip, from a ConvNeXt and a transformer
echoprime.py  EchoPrime's video encoder: one vector per clip, from an MViT
"""
