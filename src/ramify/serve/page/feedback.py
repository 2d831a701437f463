"""Judgements of people as preference rows: one JSON line each, of the shape that `ramify train method=dpo` reads."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from threading import Lock
from typing import Any

from ramify.base.errors import DataError, RunError
from ramify.base.records import json_line
from ramify.serve.page.sessions import Answer, Judged


def preference(chosen: Answer, rejected: Answer, how: str) -> dict[str, Any]:
    """A row from two answers to one prompt.

    Args:
        how: what the judgement was: `edited`, `drawn again`, `side by side`.

    Raises:
        DataError: the two are answers to different prompts or the same text, one is empty, or the chosen one was cut
            off: it would teach the model to stop there.
    """
    if chosen.prompt != rejected.prompt:
        raise DataError("the two answers are to different prompts")
    if not chosen.text.strip() or not rejected.text.strip():
        raise DataError("an empty answer cannot be learnt from")
    if chosen.text == rejected.text:
        raise DataError("both answers are the same", hint="change one, or draw another")
    if not chosen.whole:
        raise DataError("the better answer was cut off before its end", hint="complete it, or draw another")
    return {
        "prompt": [asdict(turn) for turn in chosen.prompt],
        "chosen": chosen.text,
        "rejected": rejected.text,
        "how": how,
        "chosen_by": chosen.model,
        "rejected_by": rejected.model,
        "when": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
    }


def opposites(judged: Sequence[Judged], new: Judged) -> list[dict[str, Any]]:
    """Rows of an answer and those to the same prompt that were judged the other way round."""
    others = [old.answer for old in judged if old.good != new.good and old.answer.prompt == new.answer.prompt]
    different = {other.text: other for other in others if other.text != new.answer.text}
    sides = [(new.answer, other) if new.good else (other, new.answer) for other in different.values()]
    return [preference(chosen, rejected, "drawn again") for chosen, rejected in sides]


class Feedback:
    """A file of rows that grows by whole lines, whoever writes and however it ends.

    Args:
        path: the file; it is made with the first row.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock = Lock()

    def add(self, *rows: dict[str, Any]) -> None:
        """Append rows, all of them or none.

        Raises:
            RunError: they cannot be written; the file is as it was.
        """
        content = "".join(map(json_line, rows)).encode("utf-8")
        with self._lock:
            try:
                self.path.parent.mkdir(parents=True, exist_ok=True)
                _append(self.path, content)
            except OSError as error:
                raise RunError(f"{self.path}: cannot be written: {error.strerror or error}") from None

    def __len__(self) -> int:
        """Rows in the file."""
        try:
            with self._lock, self.path.open("rb") as file:
                return sum(1 for line in file if line.strip())
        except FileNotFoundError:
            return 0


def _append(path: Path, content: bytes) -> None:
    """One write at the end of the file, which is cut back to where it was when less than all of it went in."""
    file = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o600)
    try:
        before = os.fstat(file).st_size
        if before and os.pread(file, 1, before - 1) != b"\n":  # whoever edited it left the last line open
            content = b"\n" + content
        try:
            written = os.write(file, content)
            if written < len(content):
                raise OSError(f"only {written} of {len(content)} bytes could be written")
            os.fsync(file)
        except OSError:
            os.ftruncate(file, before)
            raise
    finally:
        os.close(file)
