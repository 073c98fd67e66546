"""Clips to files: videos, DICOM, folders laid out like public data sets.

clip_file.py   one clip to a file and a manifest row
dicom.py       multi-frame ultrasound DICOM
identity.py    invented people
layouts.py     folders like EchoNet-Dynamic's and MIMIC-IV-Echo's
card.py        the data card
"""
