"""One file per job: checked on the driver, then handed to the cluster.

pretrain.py   pretraining
extraction.py what jobs that encode clips have in common
evaluate.py   features on the cluster, probes on the driver
embed.py      embeddings of clips and studies
predict.py   predictions of a fitted probe
sweep.py      hyperparameter search
manifest.py   files of a manifest, looked at by a cluster
phantom.py    phantom studies and their gallery
benchmark.py  ways of pretraining at equal cost, judged alike
noise.py      a benchmark per level of the phantom's noise
benchmark_arms.py  its arms as pretraining jobs
demo.py       the whole story on one machine
"""
