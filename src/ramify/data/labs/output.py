"""The folder a build writes: rows go to temporary files, which get their names when everything is there."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from contextlib import ExitStack, suppress
from pathlib import Path
from types import TracebackType
from typing import Any, TextIO

from ramify.base.errors import RunError
from ramify.base.records import json_line

FILES = ("train.jsonl", "test.jsonl", "report.json")


class Output:
    """train.jsonl, test.jsonl and report.json of one build. A context manager: an error within leaves no file of it.

    Raises:
        RunError: the folder holds files and `overwrite` is false, or it cannot be written.
    """

    def __init__(self, folder: Path, *, overwrite: bool = False) -> None:
        self._folder, self._overwrite = folder, overwrite
        self._made = False
        self._open = ExitStack()
        self._files: dict[str, TextIO] = {}

    def __enter__(self) -> Output:
        refuse_taken(self._folder, overwrite=self._overwrite)
        try:
            self._made = not self._folder.exists()
            self._folder.mkdir(parents=True, exist_ok=True)
            for name in FILES:
                file = self._temporary(name).open("w", encoding="utf-8", newline="\n")
                self._files[name] = self._open.enter_context(file)
        except OSError as error:
            self._remove()
            raise self._failed(error) from None
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        try:
            if kind is None:
                self._finish()
        except OSError as failed:
            raise self._failed(failed) from None
        finally:
            self._remove()
        if isinstance(error, OSError):
            raise self._failed(error) from None

    def row(self, name: str, row: Mapping[str, Any]) -> None:
        """One row of `train.jsonl` or `test.jsonl`."""
        self._files[name].write(json_line(row))

    def report(self, report: Mapping[str, Any]) -> None:
        """The content of `report.json`."""
        json.dump(report, self._files[FILES[-1]], ensure_ascii=False, indent=2)
        self._files[FILES[-1]].write("\n")

    def _finish(self) -> None:
        for file in self._files.values():
            file.flush()
            os.fsync(file.fileno())
        self._open.close()
        (self._folder / FILES[-1]).unlink(missing_ok=True)  # where there is a report, its rows are whole
        for name in FILES:
            os.replace(self._temporary(name), self._folder / name)

    def _remove(self) -> None:
        """Close and remove what is left, and the folder if it was made here and is empty."""
        with suppress(OSError):
            self._open.close()
        for name in FILES:
            with suppress(OSError):
                self._temporary(name).unlink(missing_ok=True)
        if self._made:
            with suppress(OSError):
                self._folder.rmdir()  # refuses a folder that holds something

    def _temporary(self, name: str) -> Path:
        return self._folder / f".{name}.{os.getpid()}.tmp"

    def _failed(self, error: OSError) -> RunError:
        return RunError(f"{self._folder}: cannot be written: {error.strerror or error}")


def refuse_taken(folder: Path, *, overwrite: bool) -> None:
    """Refuse a folder that holds something.

    Raises:
        RunError: it does and `overwrite` is false, or it is a file.
    """
    if folder.exists() and not folder.is_dir():
        raise RunError(f"{folder}: is a file", hint="--out names a folder")
    if folder.is_dir() and any(folder.iterdir()) and not overwrite:
        raise RunError(f"{folder}: holds files already", hint="--overwrite replaces " + ", ".join(FILES))
