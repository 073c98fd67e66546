"""Frames out of video files.

frames.py    START HERE: which decoder reads what
video.py     mp4, avi and the like, by PyAV and decord
dicom.py     multi-frame ultrasound, by pydicom
remote.py    objects behind URLs, read patiently
journal.py   which clip killed a decode process
"""
