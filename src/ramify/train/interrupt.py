"""Ctrl-C and SIGTERM that wait for a safe place: the first one is remembered, the second one acts at once."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from types import FrameType, TracebackType
from typing import Any, NoReturn

from ramify.base.errors import Terminated

_ENDS: Mapping[int, type[KeyboardInterrupt]] = {signal.SIGINT: KeyboardInterrupt, signal.SIGTERM: Terminated}
"""The signals that ask a run to end, and what each is raised as."""


class DeferredInterrupt:
    """Context manager that holds SIGINT and SIGTERM back until `check` is called.

    A step in the middle of its parameter update must not be torn. Outside the main thread, where Python delivers no
    signals, it does nothing.

    Args:
        patient: hold later signals back as well. A launcher of several processes passes on what the terminal has sent
            to all of them already, and ends those that take too long by itself.
    """

    def __init__(self, patient: bool = False) -> None:
        self._patient = patient
        self._asked: type[KeyboardInterrupt] | None = None
        self._before: dict[int, Any] = {}

    def __enter__(self) -> DeferredInterrupt:
        if threading.current_thread() is threading.main_thread():
            self._before = {number: signal.signal(number, self._remember) for number in _ENDS}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._restore()

    @property
    def asked(self) -> type[KeyboardInterrupt] | None:
        """What is to be raised at the next safe place, if anything."""
        return self._asked

    def check(self) -> None:
        """Raise the interrupt that was held back, if there was one.

        Raises:
            KeyboardInterrupt: the user asked to stop; `Terminated` for SIGTERM.
        """
        if self._asked is not None:
            raise self._asked

    def _remember(self, number: int, frame: FrameType | None) -> None:
        self._asked = self._asked or _ENDS[number]
        if not self._patient:
            self._restore()

    def _restore(self) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before = {}


@contextmanager
def terminable() -> Iterator[None]:
    """Inside the block SIGTERM raises `Terminated`, so that what is open is closed and the run folder says so."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, _terminate)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def ignore_signals() -> None:
    """Let this process, which is ending, say why: its launcher sends SIGTERM as soon as another one has ended."""
    if threading.current_thread() is threading.main_thread():
        for number in _ENDS:
            signal.signal(number, signal.SIG_IGN)


def _terminate(number: int, frame: FrameType | None) -> NoReturn:
    raise Terminated
