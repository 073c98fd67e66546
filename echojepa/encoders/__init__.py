"""Frozen encoders behind one protocol.

frozen.py     the protocol: what an encoder wants to see, and what it gives
source.py     what the settings of all kinds share; a network as a frozen encoder
kinds.py      every kind that a config may name
ours.py       encoders of this package, exported or with random weights
vjepa2.py     V-JEPA 2, 2.1 and EchoJEPA, as they are published
videomae.py   VideoMAE
echofm.py     EchoFM
vit.py        what VideoMAE and EchoFM share
panecho.py    PanEcho: one vector per clip, from a ConvNeXt and a transformer
echoprime.py  EchoPrime's video encoder: one vector per clip, from an MViT
pixels.py     frames resized and standardised as published encoders want them
custom.py     a user's own, by Python path
"""
