"""Amounts as people read them: bytes and seconds."""

from __future__ import annotations

_BYTES = (("GB", 1e9, 2), ("MB", 1e6, 0), ("kB", 1e3, 0))
_SECONDS = (("days", 86400, 172800), ("h", 3600, 5400), ("min", 60, 90))
"""Unit, its seconds, and from how many seconds on it is used."""


def gigabytes(count: float) -> str:
    """Bytes: 850 kB, 24 MB, 1.62 GB; a number that no system gives is not known."""
    if count == float("inf"):
        return "not known"
    for unit, size, digits in _BYTES:
        if count >= size:
            return f"{count / size:,.{digits}f} {unit}"
    return f"{count:.0f} bytes"


def clock(seconds: float) -> str:
    """A time: 40 s, 3.5 min, 2.1 h, 3.0 days."""
    for unit, size, least in _SECONDS:
        if seconds >= least:
            return f"{seconds / size:.1f} {unit}"
    return f"{seconds:.0f} s"
