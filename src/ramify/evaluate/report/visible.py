"""Text that somebody else wrote, as a reader sees it: nothing in it is obeyed, and nothing in it is hidden.

Markup is escaped. What has no shape of its own, or moves its neighbours, is written out:

    control characters                              [ESC], their names in ASCII
    direction marks, overrides and isolates         [U+202E]
    zero-width and other invisible characters       [U+200B]; joiners inside a script or an emoji stay what they are
    halves of surrogate pairs, noncharacters        [U+D800]
    more than four accents on one letter            four of them, [+96 accents]

Line ends and tabs stay. Order cannot leak out of a text either: a block has `dir='auto'`, and a name within a line is
put into a `<bdi>` by `isolated` (Unicode Standard Annex 9).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from html import escape

_PLANE_ENDS = "".join(chr(plane << 16 | last) for plane in range(17) for last in (0xFFFE, 0xFFFF))
_HIDDEN = (
    "\x00-\x08\x0b-\x1f\x7f-\x9f\xad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b\u200e\u200f\u2028-\u202e"
    "\u2060-\u206f\u3164\ufdd0-\ufdef\ufeff\uffa0\ufff0-\ufffb\ud800-\udfff\U0001d173-\U0001d17a\U000e0000-\U000e0fff"
    + _PLANE_ENDS
)
_ASCII = re.findall(
    r"\w+",
    "NUL SOH STX ETX EOT ENQ ACK BEL BS HT LF VT FF CR SO SI "
    "DLE DC1 DC2 DC3 DC4 NAK SYN ETB CAN EM SUB ESC FS GS RS US",
)
_SCRIPT = "\u0300-\u1fff\u2070-\U0010ffff"
_DRAWN = "#*0-9©®\u0300-\u1fff\u2010-\ufdff\ufe10-\U0010ffff"
_SIGNS = re.compile(
    f"(?P<hidden>[{_HIDDEN}]"
    f"|(?<![{_SCRIPT}])[\u200c\u200d]|[\u200c\u200d](?![{_SCRIPT}])"  # joiners join letters of a script, or emoji
    f"|(?<![{_DRAWN}])[\ufe00-\ufe0f])"  # a variation selector says how the character before it is drawn
    "|(?P<kept>[\u0300-\u036f\u0483-\u0489\u1ab0-\u1aff\u1dc0-\u1dff\u20d0-\u20ff\ufe20-\ufe2f]{4})"
    "(?P<stacked>[\u0300-\u036f\u0483-\u0489\u1ab0-\u1aff\u1dc0-\u1dff\u20d0-\u20ff\ufe20-\ufe2f]+)"
)


def plain(text: str) -> str:
    """The text with everything unseen written out: for attributes, Markdown and files of text."""
    return "".join(piece for piece, _ in _pieces(text))


def visible(text: str) -> str:
    """The text as HTML. What was written out is in a `<span class='sign'>`: nobody takes it for the text's own."""
    return "".join(
        f"<span class='sign'>{escape(piece)}</span>" if is_sign else escape(piece) for piece, is_sign in _pieces(text)
    )


def isolated(text: str) -> str:
    """The text as HTML within a line whose order it cannot change."""
    return f"<bdi>{visible(text)}</bdi>"


def attribute(text: str) -> str:
    """The text as the value of an attribute in quotes of either kind."""
    return escape(plain(text), quote=True)


def clipped(text: str, most: int = 1200) -> str:
    """The text, or its beginning and its end: an answer usually stands there. Says how much is left out."""
    left = len(text) - most
    if left <= 0:
        return text
    head = most * 2 // 3
    return f"{text[:head]} … ({left:,} characters left out) … {text[head - most :]}"


def _pieces(text: str) -> Iterator[tuple[str, bool]]:
    """The text in order: (as it stands, False) or (written out, True). Neighbouring signs are one piece."""
    signs, end = "", 0
    for match in _SIGNS.finditer(text):
        before = text[end : match.start()] + (match["kept"] or "")
        if before:
            yield from [(signs, True)] if signs else []
            yield before, False
            signs = ""
        signs += _sign(match["hidden"]) if match["hidden"] else f"[+{len(match['stacked'])} accents]"
        end = match.end()
    yield from [(signs, True)] if signs else []
    yield from [(text[end:], False)] if end < len(text) else []


def _sign(letter: str) -> str:
    code = ord(letter)
    name = _ASCII[code] if code < len(_ASCII) else "DEL" if code == 0x7F else f"U+{code:04X}"
    return f"[{name}]"
