"""One self-contained HTML page: works from disk, with no network, no kernel and no manager."""

from __future__ import annotations

import base64
import hashlib
import html
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ldm_viz.widgets.sources import page_script, read_view, style_text


def _inert(text: str) -> str:
    """JSON that can stand inside a script element: nothing in it can end the element or open a comment."""
    for character in "<>&\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return text


def _digest(text: str) -> str:
    return "'sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() + "'"


def page_text(view: str, state: Mapping[str, Any], title: str) -> str:
    """Write the page.

    Args:
        view: the view's name, such as ``"explorer"``.
        state: trait name to JSON value, bytes or a list of bytes, all that the view reads.
        title: the document's title.

    Returns:
        The HTML. Its content security policy allows the page's own script and style, pictures it makes itself, and
        nothing else: no request can leave it.
    """
    plain: dict[str, Any] = {}
    buffers: dict[str, bytes] = {}
    for trait, value in state.items():
        if isinstance(value, bytes):
            buffers[trait] = value
        elif isinstance(value, list) and value and all(isinstance(v, bytes) for v in value):
            buffers |= {f"{trait}/{place}": one for place, one in enumerate(value)}
        else:
            plain[trait] = value
    # Line breaks as the browser's parser will see them, or the digests would not match.
    script = page_script(view).replace("\r\n", "\n")
    style = (style_text(view) + read_view("page.css")).replace("\r\n", "\n")
    for text, end in ((script, "</script"), (style, "</style")):
        if end in text.lower():
            raise ValueError(f"the view {view!r} holds {end!r}, which would end its element early")
    policy = (
        f"default-src 'none'; script-src {_digest(script)}; style-src {_digest(style)}; "
        "img-src data: blob:; base-uri 'none'; form-action 'none'"
    )
    values = _inert(json.dumps(plain, ensure_ascii=False, allow_nan=False))
    data = [f'<script type="application/json" data-state>{values}</script>']
    for name, value in buffers.items():
        encoded = base64.b64encode(value).decode()
        data.append(
            f'<script type="text/plain" data-bytes="{html.escape(name)}">{encoded}</script>'
        )
    lines = [
        "<!doctype html>",
        '<html lang="en">',
        "<head>",
        '<meta charset="utf-8">',
        f'<meta http-equiv="Content-Security-Policy" content="{html.escape(policy)}">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        '<meta name="color-scheme" content="light dark">',
        '<meta name="generator" content="ldm_viz">',
        '<link rel="icon" href="data:,">',
        f"<title>{html.escape(title)}</title>",
        f"<style>{style}</style>",
        "</head>",
        "<body>",
        "<main data-view>",
        f"<h1>{html.escape(title)}</h1>",
        f"<h2>{html.escape(view.replace('_', ' '))}</h2>",
        "</main>",
        "<noscript>This page draws with JavaScript, which is switched off.</noscript>",
        *data,
        f'<script type="module">{script}</script>',
        "</body>",
        "</html>",
        "",
    ]
    return "\n".join(lines)


def write_page(
    view: str, state: Mapping[str, Any], title: str, path: str | os.PathLike[str] | None
) -> Path | str:
    """Write the page to a file, or return it where there is no path.

    Raises:
        OSError: it cannot be written there.
    """
    text = page_text(view, state, title)
    if path is None:
        return text
    target = Path(path)
    if not target.parent.is_dir():
        raise FileNotFoundError(f"there is no folder {target.parent} to write {target.name} into")
    target.write_text(text, encoding="utf-8", newline="\n")
    return target
