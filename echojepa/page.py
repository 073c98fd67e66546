"""HTML pages that need nothing else: one look for all of them, pictures and videos inside."""

from __future__ import annotations

import base64
import html

_STYLE = """
:root { color-scheme: light; }
body { font: 15px/1.5 system-ui, sans-serif; color: #1d2430; background: #f6f7f9; margin: 0; }
main { max-width: 1080px; margin: 0 auto; padding: 32px 24px 64px; }
h1 { font-size: 26px; margin: 0 0 4px; } h2 { font-size: 18px; margin: 36px 0 8px; }
h3 { font-size: 15px; margin: 24px 0 6px; }
p.note { color: #5b6472; margin: 4px 0 12px; }
section { background: #fff; border: 1px solid #e2e6ec; border-radius: 8px; padding: 4px 20px 20px;
  margin-top: 20px; }
table { border-collapse: collapse; width: 100%; }
th, td { text-align: right; padding: 6px 7px; border-bottom: 1px solid #edf0f4; }
th:first-child, td:first-child { text-align: left; min-width: 110px; }
tr.best td, td.best { font-weight: 600; }
.wide { overflow-x: auto; } p.failed { color: #a3271c; }
tr.sum td { border-top: 2px solid #c9d0da; }
th { color: #5b6472; font-weight: 500; }
td small, th small { display: block; white-space: nowrap; font-size: 11.5px; }
img { max-width: 100%; margin-top: 10px; } img.pixels { image-rendering: pixelated; width: 100%; }
.grid { display: grid; grid-template-columns: 1fr 1fr; gap: 16px; }
.films { display: grid; grid-template-columns: repeat(auto-fill, minmax(200px, 1fr)); gap: 14px; }
.films.three { grid-template-columns: repeat(3, 1fr); } .films + .films { margin-top: 14px; }
figure { margin: 0; } figcaption { color: #5b6472; font-size: 13px; line-height: 1.35; }
video { width: 100%; display: block; background: #000; border-radius: 4px; margin-bottom: 4px; }
code { font-size: 13px; }
"""


def page(title: str, lead: str, body: str) -> str:
    """A whole page; `lead` (below the heading) and `body` are HTML, `title` is text."""
    heading = html.escape(title)
    return (
        "<!doctype html><html lang='en'><head><meta charset='utf-8'>"
        "<meta name='viewport' content='width=device-width'>"
        f"<title>{heading}</title><style>{_STYLE}</style></head><body><main>"
        f"<h1>{heading}</h1>{lead}{body}</main></body></html>"
    )


def section(title: str, body: str) -> str:
    """A framed part of a page; `body` is HTML, `title` is text."""
    return f"<section><h2>{html.escape(title)}</h2>{body}</section>"


def picture(png: bytes, label: str, kind: str = "") -> str:
    """A PNG as an element; `kind` is its class in the style sheet."""
    return f"<img class='{kind}' alt='{html.escape(label)}' src='{_inline(png, 'image/png')}'>"


def film(mp4: bytes, caption: str) -> str:
    """An MP4 that plays by itself, again and again, over a caption."""
    text = html.escape(caption)
    source = _inline(mp4, "video/mp4")
    return (
        f"<figure><video autoplay loop muted playsinline aria-label='{text}' src='{source}'>"
        f"</video><figcaption>{text}</figcaption></figure>"
    )


def _inline(content: bytes, media_type: str) -> str:
    return f"data:{media_type};base64,{base64.b64encode(content).decode()}"
