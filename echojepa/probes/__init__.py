"""What a frozen encoder is worth. Never sees `train`: they meet at `models/weights.py`.

tasks.py       what is predicted, from which clips
features.py    frozen features of clips
linear.py      ridge and logistic probes
metrics.py     scores
intervals.py   how sure they are, over patients
online.py      a small probe while pretraining goes on
"""
