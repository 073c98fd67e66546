"""What a frozen encoder is worth. Never sees `train`: they meet at `models/weights.py`.

tasks.py        what is predicted, from which clips
features.py     videos to clips, and clips to features
store.py        features on disk, memory-mapped and resumable
extraction.py   from rows of a manifest to features on disk
examples.py     what a probe is shown at once: a clip, or a study with clips in slots
linear.py       ridge and logistic probes
grid/           many trained heads at once on frozen tokens, of which one is chosen
fitting.py      a probe fitted on train, chosen on validation, judged on test
probe_file.py   a fitted probe on disk
predictions.py  what was said of clips or studies
metrics.py      scores
intervals.py    how sure they are, over patients
results.py      all of it as plain JSON and as a table
leaks.py        test patients in pretraining, test splits read again
suites/         label efficiency, robustness, transfer, the public benchmark's files
online.py       a small probe while pretraining goes on
"""
