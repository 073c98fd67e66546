"""Many probe heads on frozen tokens, trained all at once as one batched module.

samples.py     what heads learn from: tokens of views and clips, some of them absent
config.py      the settings of a grid
layers.py      layers whose parameters have one leading dimension for the heads of a grid
attention.py   self-attention of every head; pooling by one learned query, folded
heads.py       linear, MLP and attentive heads; embeddings and fusion of views and clips
target.py      labels to what heads are taught and back; losses
optimiser.py   AdamW with a learning rate and a weight decay per head
fit.py         train all heads, judge them on val after every epoch, choose one
fitted.py      the chosen head: predict, save, load
"""
