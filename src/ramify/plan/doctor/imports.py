"""Whether packages really import, tried in a process of their own: a library for another processor ends its process.

    python -m ramify.plan.doctor.imports cyllama pocketsphinx

prints a JSON line for each module when it begins, and another one when it is done.
"""

from __future__ import annotations

import importlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from threading import Timer
from typing import Any

TRYING = "ramify.plan.doctor.imports"
"""This module, by the name it is run with."""
TIMEOUT = 120.0
"""Seconds after which it is given up on modules of one process that are still not there."""
_LONGEST = 200


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a module was not imported.

    Attributes:
        late: it was given up, which on a busy machine says nothing about the module.
    """

    reason: str
    late: bool = False


class Trial:
    """A module of Ramify run in a process that sees the same packages as this one, and nothing of the network.

    A process that takes longer than `TIMEOUT` is ended, and `is_late` then.
    """

    def __init__(self, module: str, *arguments: str) -> None:
        # `-P`: a file torch.py in the working folder is not what is looked for.
        command = [sys.executable, "-P", "-m", module, *arguments]
        paths = os.pathsep.join(each for each in sys.path if each)
        environment = {**os.environ, "PYTHONPATH": paths, "HF_HUB_OFFLINE": "1", "PYTHONWARNINGS": "ignore"}
        self._last = "it said nothing"
        self._process = subprocess.Popen(
            command, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        )
        self.is_late = False
        self._clock = Timer(TIMEOUT, self._end)
        self._clock.daemon = True
        self._clock.start()

    def rows(self) -> Iterator[dict[str, Any]]:
        """The JSON objects it prints, as they come, among whatever the libraries print. Reading ends with it."""
        for raw in self._process.stdout or ():
            row = _row(raw)
            if row is not None:
                yield row
            elif raw.strip():
                self._last = raw.decode(errors="replace").strip()[:_LONGEST]

    def how_it_ended(self) -> str:
        """Why it said no more, in one line; call it when `rows` are read."""
        code = self._process.wait()
        self._clock.cancel()
        if self._process.stdout is not None:
            self._process.stdout.close()
        if self.is_late:
            return f"it was not done after {TIMEOUT:.0f} s"
        return self._last if code >= 0 else f"its process was ended by {signal.Signals(-code).name}: {self._last}"

    def _end(self) -> None:
        self.is_late = True
        self._process.kill()


def _row(raw: bytes) -> dict[str, Any] | None:
    """The object at the end of a line: a library may have begun the line before."""
    start = raw.find(b'{"')
    with suppress(ValueError):
        value = json.loads(raw[start:]) if start >= 0 else None
        return value if isinstance(value, dict) else None
    return None


def failed_imports(modules: Sequence[str], first: Trial | None = None) -> dict[str, Failure]:
    """Module -> why it was not imported, for those that were not.

    Args:
        first: a process that tries them already; after a module that ends it the others get one of their own.
    """
    failed: dict[str, Failure] = {}
    left, trial = list(modules), first
    while left or trial is not None:
        trial = trial or Trial(TRYING, *left)
        begun = None
        for row in trial.rows():
            begun = str(row["module"])
            if "reason" in row:
                left.remove(begun)
                failed |= {begun: Failure(row["reason"])} if row["reason"] else {}
        reason = Failure(trial.how_it_ended(), trial.is_late)
        trial = None
        if left:
            broken = begun if begun in left else left[0]
            failed[broken] = reason
            left.remove(broken)
    return failed


def _try(module: str) -> str:
    """Why a module cannot be imported; empty: it can."""
    try:
        importlib.import_module(module)
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # a module may raise anything, SystemExit too
        return f"{type(error).__name__}: {' '.join(str(error).split())}"[:_LONGEST]
    return ""


def try_imports(modules: Sequence[str]) -> None:
    """Import modules, and print how that went."""
    for module in modules:
        print(json.dumps({"module": module}), flush=True)
        print(json.dumps({"module": module, "reason": _try(module)}), flush=True)


if __name__ == "__main__":
    try_imports(sys.argv[1:])
