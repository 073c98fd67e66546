"""Latent-predictive pretraining of heart-ultrasound video encoders.

pretrain.py     READ FIRST: pretraining, assembled
evaluate.py     evaluation, assembled
embed.py        embeddings of clips and studies
predict.py      predictions of a fitted probe on new videos
replay.py       one step of a run once more, alone
errors.py       typed errors and exit codes
config.py       strict YAML configs
settings.py     every setting of a config, for people
durable.py      files that survive a power cut
page.py         HTML pages that need nothing else
randomness.py   seeds, counter-based generators, a keyed permutation
cost.py         FLOPs and memory of a training step
data/           videos in, uint8 clips out
phantom/        beating hearts with known truth, filmed
models/         our networks, and encoders on disk
objectives/     what is learnt, behind one seam
encoders/       frozen encoders, ours and others'
train/          ONE OPTIMISER STEP
probes/         what a frozen encoder is worth
pictures/       pictures and pages
runs/           everything on disk about a run
benchmark/      ways of pretraining at equal cost, judged alike
on_ray/         every detail of Ray
launch/         one file per job
cli/            the console command
"""

__version__ = "0.1.0"
