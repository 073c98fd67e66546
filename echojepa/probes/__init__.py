"""What a frozen encoder is worth. Never sees `train`: they meet at `models/weights.py`.

tasks.py       what is predicted, from which clips
features.py    frozen features of clips
linear.py      ridge and logistic probes
metrics.py     scores
predictions.py what was said of clips or studies
results.py     all of it as plain JSON
leaks.py       test patients in pretraining, test splits read again
intervals.py   how sure they are, over patients
efficiency.py  how many labels it takes
cardiobench.py predictions as the files that a public benchmark scores
online.py      a small probe while pretraining goes on
"""
