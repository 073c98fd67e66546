"""Every detail of Ray. Nothing else imports it.

internals.py     all private parts of Ray that are used
connect.py       reaching a cluster, or starting one
preflight.py     what would fail an hour later, looked at first
node.py          one node's view of a job
group.py         the group of training workers
worker.py        a worker: how the loop reaches Ray
stream.py        the Ray Data pipelines
tasks.py         map over the cores of a cluster
tuning.py        Ray Tune
resize.py        a checkpoint before a group changes its size
drain.py         a checkpoint before a node goes
termination.py   a cloud's notice becomes a drain
heartbeat.py     a worker that hangs ends itself
progress.py      a run on the driver's terminal
"""
