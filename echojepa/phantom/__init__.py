"""Phantom echocardiography: a beating heart of known measures, filmed as video files."""

from echojepa.phantom.clip import Clip, render_clip
from echojepa.phantom.config import PhantomConfig
from echojepa.phantom.gallery import write_gallery
from echojepa.phantom.study import write_phantom

__all__ = ["Clip", "PhantomConfig", "render_clip", "write_gallery", "write_phantom"]
