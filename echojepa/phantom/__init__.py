"""Phantom echocardiography: a beating heart of known measures, filmed as video files.

config.py    all settings
clip.py      START HERE: one clip, from patient to frames
study.py     studies as files with a manifest
gallery.py   one page on which everything plays
anatomy/     patients and their hearts
view/        what one view shows
machine/     how a machine makes pictures
files/       clips to files
"""

from echojepa.phantom.clip import Clip, render_clip
from echojepa.phantom.config import PhantomConfig
from echojepa.phantom.gallery import write_gallery
from echojepa.phantom.study import write_phantom

__all__ = ["Clip", "PhantomConfig", "render_clip", "write_gallery", "write_phantom"]
