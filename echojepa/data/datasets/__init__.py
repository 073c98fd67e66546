"""Manifest rows from the lists that public data sets bring with them.

listing.py             START HERE: entries of a list, looked at file by file
cells.py               what stands in a cell: a label, a fact, nothing
echonet_dynamic.py     FileList.csv
echonet_pediatric.py   two FileList.csv, and ten folds
camus.py               a folder per patient, and three lists of patients
nifti_video.py         a NIfTI sequence as a lossless video
mimic.py               echo-record-list.csv of MIMIC-IV-Echo

A list says whose a clip is, where it lies, its labels and its split. What it says of the file
itself (frames, rate, size) is compared with the file: the file is right, and differences are
counted. An entry that can't become a row (no file, no label, listed twice) is rejected with the
reason, never repaired.
"""
