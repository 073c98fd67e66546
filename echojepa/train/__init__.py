"""ONE OPTIMISER STEP. Knows neither Ray nor what is learnt.

loop.py          THE TRAINING LOOP
step.py          one step in records, and who is called around it
feed.py          checked micro-batches, fetched ahead
engine.py        what the loop needs of an engine; the plain one
zero_engine.py   DeepSpeed ZeRO-3, and the only file that touches it
worker.py        who runs the loop
record.py        what was trained on
schedules.py     rates as functions of the step
collectives.py   small sums and broadcasts on the host
device.py        every choice that depends on the device
"""
