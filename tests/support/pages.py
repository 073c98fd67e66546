"""An HTML page taken apart: its tags, tables, pictures and films."""

from __future__ import annotations

import base64
import io
from html.parser import HTMLParser

import av
import numpy as np
from PIL import Image

VOID = {"img", "meta", "br", "hr"}


class Page(HTMLParser):
    """Tags, attributes and table cells of a page; fails on tags that do not nest."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str]] = []
        self.rows: list[list[str]] = []
        self.best: list[tuple[int, int]] = []
        """Row and column of the cells that are marked as best, one by one."""
        self.text = ""
        self._open: list[str] = []
        self.feed(text)
        self.close()
        assert not self._open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(name, value or "") for name, value in attrs]
        if tag == "tr":
            self.rows.append([])
        elif tag in ("td", "th"):
            self.rows[-1].append("")
            if ("class", "best") in attrs:
                self.best.append((len(self.rows) - 1, len(self.rows[-1]) - 1))
        if tag not in VOID:
            self._open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data
        if {"td", "th"} & set(self._open):
            self.rows[-1][-1] += data

    def images(self) -> list[np.ndarray]:
        """Pixels of all embedded images, [H, W, 3] each."""
        found = self._embedded("image/png")
        return [np.asarray(Image.open(io.BytesIO(png)).convert("RGB")) for png in found]

    def films(self) -> dict[str, np.ndarray]:
        """Frames of all embedded films, [T, H, W, 3] each, by caption."""
        captions = [value for name, value in self.attributes if name == "aria-label"]
        films = [decoded(mp4) for mp4 in self._embedded("video/mp4")]
        return dict(zip(captions, films, strict=True))

    def _embedded(self, kind: str) -> list[bytes]:
        sources = [value.partition(",") for name, value in self.attributes if name == "src"]
        assert {head for head, _, _ in sources} <= {
            "data:image/png;base64",
            "data:video/mp4;base64",
        }
        return [
            base64.b64decode(data) for head, _, data in sources if head == f"data:{kind};base64"
        ]


def decoded(mp4: bytes) -> np.ndarray:
    """All frames of a film, [T, H, W, 3]."""
    with av.open(io.BytesIO(mp4)) as file:
        return np.stack([frame.to_ndarray(format="rgb24") for frame in file.decode(video=0)])
