"""From native frames to the uint8 clip that travels to the training workers."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from echojepa.data.sampling import Box


def crop_resize(frames: NDArray[np.uint8], box: Box, size: int) -> NDArray[np.uint8]:
    """One resized crop, straight to the target size in uint8.

    Args:
        frames: [T, H, W, 3].
    Returns:
        [T, size, size, 3]. Bilinear when enlarging, area-averaged when shrinking (no aliasing).
    """
    cropped = frames[:, box.top : box.top + box.height, box.left : box.left + box.width]
    if box.mirror:
        cropped = cropped[:, :, ::-1]
    shrinking = box.height > size or box.width > size
    how = cv2.INTER_AREA if shrinking else cv2.INTER_LINEAR
    out = np.empty((len(frames), size, size, 3), np.uint8)
    for source, target in zip(cropped, out, strict=True):
        cv2.resize(np.ascontiguousarray(source), (size, size), dst=target, interpolation=how)
    return out
