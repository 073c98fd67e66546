"""Clips to files: videos, DICOM, folders laid out like public data sets.

clip_file.py   one clip to a file and a manifest row
write.py       H.264 in MP4, Motion JPEG in AVI
dicom.py       multi-frame ultrasound DICOM
identity.py    invented people
layouts.py     folders like EchoNet-Dynamic's and MIMIC-IV-Echo's
card.py        the data card
"""
