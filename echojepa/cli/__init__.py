"""The console command.

main.py       the app, and the commands that run jobs
common.py     arguments that commands share
evaluation.py  judge frozen encoders, embed, predict
benchmark.py  ways of pretraining at equal cost
runs.py       what a run has done, and one step of it once more
settings.py   every setting of a job
manifest.py   check, split, describe, import manifests
weights.py    export and import of encoders
cluster.py    nodes that will be taken away
"""
