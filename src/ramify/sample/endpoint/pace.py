"""When the next request may begin: so many a minute, and not before the endpoint said so."""

from __future__ import annotations

import random
from dataclasses import dataclass
from threading import Event, Lock
from time import monotonic


class StoppedError(Exception):
    """Nothing more is to be asked."""


@dataclass(frozen=True, slots=True)
class BackOff:
    """How long to wait before a request is sent again: doubling from `first` to `longest`, half of it by chance.

    Chance keeps many that were refused together from coming back together (exponential back-off with jitter).

    Attributes:
        first, longest: in seconds.
        patience: the longest wait in seconds that an endpoint may ask for; beyond it the run stops.
    """

    first: float = 0.5
    longest: float = 60.0
    patience: float = 600.0

    def seconds(self, attempt: int) -> float:
        """Before attempt `attempt` + 1, attempts counted from 0."""
        whole = min(self.longest, self.first * 2.0 ** min(attempt, 60))
        return whole * (0.5 + 0.5 * random.random())


class Pace:
    """Shared by all threads that ask one endpoint.

    Args:
        per_minute: most requests begun in a minute; None: no limit.
        stopped: set by whoever wants it to end; every wait ends then.
    """

    def __init__(self, per_minute: int | None, stopped: Event) -> None:
        self._gap = 60.0 / per_minute if per_minute else 0.0
        self._stopped = stopped
        self._next = 0.0
        self._lock = Lock()

    def wait(self) -> None:
        """Wait for a turn.

        Raises:
            StoppedError: it is over.
        """
        with self._lock:
            turn = max(monotonic(), self._next)
            self._next = turn + self._gap
        self.pause(turn - monotonic())

    def hold(self, seconds: float) -> None:
        """Let nobody begin before so many seconds have passed."""
        with self._lock:
            self._next = max(self._next, monotonic() + seconds)

    def pause(self, seconds: float) -> None:
        """Let this thread alone wait.

        Raises:
            StoppedError: it is over.
        """
        if self._stopped.wait(seconds) if seconds > 0 else self._stopped.is_set():
            raise StoppedError
