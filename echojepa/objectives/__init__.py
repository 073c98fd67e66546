"""What is learnt, behind one seam.

objective.py       START HERE: what an objective must give, and nothing more
kinds.py           those that a config may name
masked.py          what objectives with masks share: networks, drawing and cost
latent.py          what objectives of latent prediction share: masks, predictor, error
jepa.py            predict features of the encoder's own average, or of itself
frozen_target.py   predict features of a finished encoder, of any size (SALT)
mae.py             predict pixels (EchoMAE)
supervised.py      predict labels: the yardstick
regulariser.py     embeddings of different clips stay apart: SIGReg, VICReg
masks.py           which tokens are hidden, keyed by (seed, s)
token_masks.py     masks of tubes or single tokens, and every kind in one type
mask_geometry.py   blocks on a grid, made equal in count
distance.py        how far visible tokens are from hidden ones
target.py          the moving average of an encoder
"""
