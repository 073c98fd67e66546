"""Videos in, uint8 clips out. Knows neither PyTorch nor Ray.

manifest.py         one Parquet row per clip; patient-disjoint splits
manifest_stats.py   what a manifest holds, in numbers
import_csv.py       manifests from the reference's CSV files
verify.py           does every video hold what the manifest says?
clip_table.py       the rows one job uses, memory-mapped
mixture.py          shares of several data sets
sampling.py         (seed, s) to clip, window and crop
decode/             frames out of video files
problem.py          why a clip could not be used
stream.py           the plan: which sample sits in which block
block.py            a block of clips, decoded and proven
"""
