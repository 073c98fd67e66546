"""Phantom echocardiography: a beating heart of known measures, filmed as video files."""

from echojepa.data.phantom.clip import Clip, render_clip
from echojepa.data.phantom.config import PhantomConfig
from echojepa.data.phantom.gallery import write_gallery
from echojepa.data.phantom.study import write_phantom

__all__ = ["Clip", "PhantomConfig", "render_clip", "write_gallery", "write_phantom"]
