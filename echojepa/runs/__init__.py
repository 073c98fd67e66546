"""Everything on disk about a run. Knows no Ray.

folder.py       paths and small files of a run
start.py        how a run begins: resume, fork_from, init_from
saver.py        when the loop saves
checkpoint.py   whole, verified, visible all at once
shards.py       state on disk that any world size reads
frozen.py       what an evaluation takes from runs: encoders, checkpoints, twins, facts
export.py       from a checkpoint to an encoder folder
audit.py        proof that no sample was lost or doubled
watcher.py      metrics, events, TensorBoard
statistics.py   how spread out features are
monitor.py      is the representation collapsing?
rollback.py     what follows
mirror.py       a copy on other storage
storage.py      a folder on S3, GCS or a disk
"""
