"""Frozen encoders behind one protocol.

frozen.py    the protocol: what an encoder wants to see, and what it gives
source.py    what the settings of all kinds share; a network as a frozen encoder
kinds.py     every kind that a config may name
ours.py      encoders of this package, exported or with random weights
vjepa2.py    V-JEPA 2, 2.1 and EchoJEPA, as they are published
videomae.py  VideoMAE
echofm.py    EchoFM
vit.py       what VideoMAE and EchoFM share
pixels.py    frames resized as published encoders want them
custom.py    a user's own, by Python path
"""
