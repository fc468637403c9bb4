"""Images of a notebook as parts of a message: pixels in a ``data:`` address, nothing that has to be fetched."""

from __future__ import annotations

import sys
from base64 import b64decode, b64encode
from io import BytesIO
from typing import Any

from promptkit_nb.turns import ContentPart

_LONGEST_SIGNATURE_BYTES = 12


def image_part(value: Any) -> ContentPart | None:
    r"""Return the image that a value is, or ``None`` where it is none.

    Images are the bytes of a PNG, JPEG, GIF or WebP file, a figure of matplotlib, and whatever shows itself in a
    notebook as PNG or JPEG (``_repr_png_``, ``_repr_jpeg_``): those of Pillow and ``IPython.display.Image``. None of
    these libraries is imported.

    >>> image_part(b"\x89PNG\r\n\x1a\n").url
    'data:image/png;base64,iVBORw0KGgo='
    """
    data = value if isinstance(value, bytes) else _drawn(value)
    kind = None if data is None else _kind_of(data[:_LONGEST_SIGNATURE_BYTES])
    if data is None or kind is None:
        return None
    return ContentPart("image_url", url=f"data:image/{kind};base64,{b64encode(data).decode()}")


def _kind_of(start: bytes) -> str | None:
    if start.startswith(b"\x89PNG\r\n\x1a\n"):
        return "png"
    if start.startswith(b"\xff\xd8\xff"):
        return "jpeg"
    if start.startswith((b"GIF87a", b"GIF89a")):
        return "gif"
    return "webp" if start[:4] == b"RIFF" and start[8:] == b"WEBP" else None


def _drawn(value: Any) -> bytes | None:
    figures = sys.modules.get("matplotlib.figure")
    if figures is not None and isinstance(value, figures.Figure):
        drawing = BytesIO()
        value.savefig(drawing, format="png")
        return drawing.getvalue()
    for name in ("_repr_png_", "_repr_jpeg_"):
        method = getattr(type(value), name, None)
        shown = None if method is None else method(value)
        data = shown[0] if isinstance(shown, tuple) else shown  # the second is metadata, such as a width
        if data:
            return b64decode(data) if isinstance(data, str) else bytes(data)
    return None
