"""Phantom echocardiography: a beating heart of known volumes, rendered as B-mode video files."""

from echojepa.data.phantom.clip import Clip, render_clip
from echojepa.data.phantom.config import PhantomConfig
from echojepa.data.phantom.study import write_phantom

__all__ = ["Clip", "PhantomConfig", "render_clip", "write_phantom"]
