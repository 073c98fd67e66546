"""Does every video hold what the manifest says? Opens, walks and hashes each one.

Hashing matters: a flipped bit in an H.264 picture decodes to garbage without any error.
"""

from __future__ import annotations

import pyarrow as pa

from echojepa.data.decode.frames import open_video
from echojepa.errors import ClipError

_RATE_TOLERANCE = 0.01


def find_problems(table: pa.Table) -> list[tuple[str, str]]:
    """(clip_id, what is wrong) of every clip whose file is unreadable or differs from its row."""
    problems = []
    columns = ["clip_id", "uri", "num_frames", "native_fps", "height", "width", "content_hash"]
    for row in table.select(columns).to_pylist():
        try:
            video = open_video(row["uri"])
            info = video.probe()
        except ClipError as error:
            problems.append((row["clip_id"], str(error)))
            continue
        for name in ("num_frames", "height", "width"):
            if getattr(info, name) != row[name]:
                found = f"{name} is {getattr(info, name)}, the manifest says {row[name]}"
                problems.append((row["clip_id"], found))
        if abs(info.native_fps / row["native_fps"] - 1) > _RATE_TOLERANCE:
            found = f"{info.native_fps:.3f} fps, the manifest says {row['native_fps']:.3f}"
            problems.append((row["clip_id"], found))
        kind, _, digest = (row["content_hash"] or "").partition(":")
        if kind == "sha256" and video.digest() != digest:
            problems.append((row["clip_id"], "the content has changed since it was hashed"))
    return problems
