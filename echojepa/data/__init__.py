"""Videos in, uint8 clips out. Knows neither PyTorch nor Ray.

manifest/         one Parquet row per clip: checked, split, described, verified
node_cache.py     what is worked out once per node
clip_convert.py   the rows one job uses, as an Arrow file
clip_table.py     the same, mapped into memory
mixture.py        shares of several data sets
sampling.py       (seed, s) to clip, window and crop
datasets/         manifest rows from public data sets' own lists
decode/           frames out of video files
video_file.py     frames to a video file
problem.py        why a clip could not be used
stream.py         the plan: which sample sits in which block
block.py          a block of clips, decoded and proven
labels.py         labels of clips, standardised or numbered
encode.py         the way back: frames to the bytes of a video
corrupt.py        videos as worse machines and windows would show them
"""
