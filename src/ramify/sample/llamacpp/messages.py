"""What llama.cpp writes to its log, kept to say why it refuses something."""

from __future__ import annotations

_ERROR, _CONTINUED = 4, 5
_KEPT = 50


class Messages:
    """The lines of one call. `reason` is the first error among them, the last line being llama.cpp's summary."""

    def __init__(self) -> None:
        self._errors: list[str] = []
        self._last = 0

    def add(self, level: int, text: str) -> None:
        """Take a message, whole or going on from the one before."""
        level = int(level)
        if level == _CONTINUED and self._last == _ERROR and self._errors:
            self._errors[-1] += text
        elif level == _ERROR and len(self._errors) < _KEPT:
            self._errors.append(text)
        self._last = self._last if level == _CONTINUED else level

    @property
    def reason(self) -> str:
        """One line, or nothing when there was no error."""
        lines = [" ".join(text.split()) for text in self._errors if text.strip()]
        return lines[0] if lines else ""
