"""Frames out of video files.

frames.py         START HERE: a file is opened, and decoded by what its bytes say
source.py         its content, patiently
objects.py        object stores
timeline.py       which frame is shown at which time
packets.py        the frames of a video stream, by its packets
video.py          MP4, AVI and the like, by PyAV
decord_video.py   the same by decord
picture.py        upright, with square pixels
dicom.py          multi-frame ultrasound, by pydicom
dicom_time.py     the times of its frames
journal.py        which clip killed a decode process
"""
