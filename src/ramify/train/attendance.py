"""Who is still there: every process of a run leaves a sign of life in a common store, and a word when it leaves.

A collective operation does not say which process is missing, nor why, and on a GPU it may not end at all. A thread of
each process therefore writes `beat/RANK` once a second and reads those of the others; a process that leaves writes
`end/RANK`: its reason, empty where that is known (the end of the run, a signal, another process).
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from typing import Protocol

_BEAT = 1.0
"""Seconds between signs of life."""
_SILENCE = 30.0
"""Seconds without one after which a process counts as gone."""
_QUIET = 4.0
"""The same where it is known that somebody is gone, and only the question who."""
_GRACE = 10.0
"""Seconds that the main thread has to end by itself once another process is gone."""
_POLL = 0.1


class Store(Protocol):
    """What is used of torch's stores. All of it raises RuntimeError when the store has ended."""

    def set(self, key: str, value: str) -> None:
        """Write."""

    def get(self, key: str) -> bytes:
        """Read what is there."""

    def multi_get(self, keys: list[str]) -> list[bytes]:
        """Read several in one round trip."""

    def check(self, keys: list[str]) -> bool:
        """Whether all are there."""

    def wait(self, keys: list[str]) -> None:
        """Return when all are there."""


class Attendance:
    """Signs of life of this process and of the others.

    Args:
        store: reached by all processes; a connection of its own, since a thread uses it all the time.
        rank: of this process, of `size`.
        host: who ends the store when it ends: `process 0`, or `the launcher`.
        lost: called from the thread with a reason when another process is gone and the main thread, which may wait in a
            collective operation for ever, has done nothing about it.
    """

    def __init__(self, store: Store, rank: int, size: int, host: str, lost: Callable[[str], None]) -> None:
        self.rank, self.size, self.host = rank, size, host
        self._store, self._lost = store, lost
        self._others = [each for each in range(size) if each != rank]
        self._seen: dict[int, tuple[bytes, float]] = {}
        self._ends: dict[int, str] = {}
        self._beats = 0
        self._reached = True
        self._over = threading.Event()
        self._handled = threading.Event()
        self._lock = threading.Lock()
        self._beat()
        store.wait([f"beat/{each}" for each in self._others])
        self._read()

    def start(self) -> None:
        """Watch the others from now on."""
        threading.Thread(target=self._watch, name="ramify attendance", daemon=True).start()

    def reason(self, patience: float, silence: float) -> str | None:
        """Why another process is gone, or None.

        Args:
            patience: seconds to wait for a word or a silence; fewer when all others have left in peace.
            silence: seconds without a sign of life that count as gone.
        """
        self._handled.set()
        until = time.monotonic() + patience
        while True:
            found = self._look(silence)
            if found is not None or time.monotonic() >= until or len(self._ends) == len(self._others):
                return found
            time.sleep(_POLL)

    def leave(self, reason: str = "") -> None:
        """Say that this process ends, and why if something went wrong here."""
        self._over.set()
        with suppress(RuntimeError):  # the store has ended before
            self._store.set(f"end/{self.rank}", reason)

    def wait_for(self, ranks: Iterable[int], seconds: float) -> None:
        """Give these processes the time to notice, and to leave with a word of their own."""
        until, awaited = time.monotonic() + seconds, set(ranks) - {self.rank}
        while not awaited <= self._ends.keys() and self._reached and time.monotonic() < until:
            time.sleep(_POLL)
            self._look(_SILENCE)

    @property
    def main_has_spoken(self) -> bool:
        """Whether process 0 has left with a word, so that nobody has to speak in its place."""
        return 0 in self._ends

    @property
    def is_first_left(self) -> bool:
        """Whether this is the process of the lowest number among those that are still there.

        A store that has ended was the main process's, as a rule, and tells nothing of the others.
        """
        now = time.monotonic()
        gone = self._ends.keys() if self._reached else {0}
        before = [each for each in self._others if each < self.rank and each not in gone]
        return all(now - self._seen[each][1] > _QUIET for each in before)

    def _watch(self) -> None:
        noticed: float | None = None
        while not self._over.wait(_BEAT):
            with suppress(RuntimeError):
                self._beat()
            if self._handled.is_set():
                continue
            reason, now = self._look(_SILENCE) or self._left_before(), time.monotonic()
            if reason is None:
                continue
            noticed = now if noticed is None else noticed
            if now - noticed > _GRACE:
                self._lost(reason)
                return

    def _beat(self) -> None:
        self._beats += 1
        self._store.set(f"beat/{self.rank}", str(self._beats))

    def _look(self, silence: float) -> str | None:
        """Why another process is gone, as far as it is known now."""
        try:
            with self._lock:
                self._read()
        except RuntimeError:
            self._reached = False
            return f"{self.host} has ended without a word"
        words = {rank: word for rank, word in sorted(self._ends.items()) if word}
        if words:
            return _first(words, self.size)
        now = time.monotonic()
        silent = [rank for rank in self._others if rank not in self._ends and now - self._seen[rank][1] > silence]
        if silent:
            return f"process {silent[0]} of {self.size} has ended without a word (killed, or out of memory?)"
        return None

    def _left_before(self) -> str | None:
        """That another process has left, in peace, while this one stays: all of a run leave together."""
        return f"process {min(self._ends)} of {self.size} has left before the end" if self._ends else None

    def _read(self) -> None:
        now = time.monotonic()
        beats = self._store.multi_get([f"beat/{rank}" for rank in self._others])
        for rank, beat in zip(self._others, beats, strict=True):
            if rank not in self._seen or self._seen[rank][0] != beat:
                self._seen[rank] = (beat, now)
            if rank not in self._ends and self._store.check([f"end/{rank}"]):
                self._ends[rank] = self._store.get(f"end/{rank}").decode()


def _first(words: Mapping[int, str], size: int) -> str:
    rank = min(words)
    return f"process {rank} of {size}: {words[rank]}"
