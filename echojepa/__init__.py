"""EchoJEPA on Ray: latent-predictive pretraining of heart-ultrasound video encoders.

Start reading at `echojepa.pretrain`, which assembles a run in a screenful, then
`echojepa.train.loop`, which is the training loop.
"""

__version__ = "0.1.0"
