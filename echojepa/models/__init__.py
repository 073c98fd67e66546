"""Our networks, and encoders on disk.

attention.py   attention with 3-D rotary positions, and the block
encoder.py     the video encoder
predictor.py   from visible features to hidden ones
weights.py     encoder folders: save, load, fill
formats/       weights of other software, in and out
"""
