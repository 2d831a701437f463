"""The folders of a mix: the one it will be, which appears whole or not at all, and the one it is made in.

DIR             train/ validation/ dataset_dict.json report.json report.md (train.jsonl validation.jsonl)
DIR.partial     what the first pass set aside, a folder for each source; removed when DIR is there
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ramify.base.errors import ConfigError, RunError
from ramify.data.mix.shelf import MARKER

REPORT, PAGE = "report.json", "report.md"


class MixFolder:
    """Where a mix goes.

    Args:
        resume: go on with what an interrupted mix has set aside.
        overwrite: replace what is there.

    Raises:
        RunError: something is there already, and neither of them says what to do with it.
        ConfigError: both are given.
    """

    def __init__(self, out: Path, *, resume: bool = False, overwrite: bool = False) -> None:
        if resume and overwrite:
            raise ConfigError("--resume and --overwrite exclude each other")
        _refuse_taken(out, overwrite)
        self.out = out
        self.partial = Path(f"{os.path.abspath(out)}.partial")
        if self.partial.exists() and not (resume or overwrite):
            hint = "--resume goes on with it, --overwrite begins anew"
            raise RunError(f"{self.partial}: holds what an interrupted mix has set aside", hint=hint)
        if overwrite:
            shutil.rmtree(self.partial, ignore_errors=True)

    def source(self, number: int) -> Path:
        """Folder of what the first pass sets aside of one source."""
        return self.partial / f"source-{number:03d}"

    def forget(self) -> None:
        """Remove what was set aside if no source was finished: there is nothing to go on with."""
        if not any(self.partial.glob(f"*/{MARKER}")):
            shutil.rmtree(self.partial, ignore_errors=True)

    @contextmanager
    def making(self) -> Iterator[Path]:
        """A new folder that gets its name, in place of what was there, when the block ends without an error."""
        made, old = self.partial / "made", self.partial / "old"
        with self.writing():
            for leftover in (made, old):
                shutil.rmtree(leftover, ignore_errors=True)
            made.mkdir(parents=True)
            yield made
            if self.out.exists():
                os.replace(self.out, old)
            os.replace(made, self.out)
            shutil.rmtree(self.partial, ignore_errors=True)

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Names the folder where the system refuses to write.

        Raises:
            RunError: it does.
        """
        try:
            yield
        except OSError as error:
            raise RunError(f"{self.out}: cannot be written: {error.strerror or error}") from None


def _refuse_taken(out: Path, overwrite: bool) -> None:
    """Refuse a place that holds something; with `overwrite`, something that is no mix."""
    if out.exists() and not out.is_dir():
        raise RunError(f"{out}: is a file", hint="--out names a folder")
    if out.is_dir() and any(out.iterdir()):
        if not overwrite:
            raise RunError(f"{out}: holds files already", hint="--overwrite replaces the folder")
        if not all((out / name).is_file() for name in (REPORT, "dataset_dict.json")):
            raise RunError(f"{out}: holds files that are no mix", hint="choose another folder")
