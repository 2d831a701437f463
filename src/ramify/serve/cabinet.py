"""Voices that are open: one is opened when it is asked for, and closed when others need its place.

cabinet = Cabinet(keep=2)
with cabinet.lend("nano", "runs/sft") as (base, tuned):
    …
"""

from __future__ import annotations

import threading
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from ramify.base.errors import ConfigError
from ramify.serve.voice import Voice
from ramify.serve.voices import open_voice


class Cabinet:
    """Opens voices by name and keeps the last `keep` of them; safe to use from any thread.

    A voice that is lent is never closed. Whoever asks for another one, and there is no place, waits until one is given
    back; voices that are needed together are asked for together, so that no two wait for each other.

    Args:
        opener: opens a voice by its name.
        keep: most voices that are open at once.
    """

    def __init__(self, opener: Callable[[str], Voice] = open_voice, *, keep: int = 1) -> None:
        if keep < 1:
            raise ConfigError(f"keep = {keep}: at least one voice is open")
        self._opener, self._keep = opener, keep
        self._changed = threading.Condition()
        self._open: OrderedDict[str, Voice] = OrderedDict()  # the one used longest ago comes first
        self._lent: Counter[str] = Counter()

    @property
    def names(self) -> tuple[str, ...]:
        """Voices that are open, the one used longest ago first."""
        with self._changed:
            return tuple(self._open)

    @contextmanager
    def lend(self, *names: str) -> Iterator[tuple[Voice, ...]]:
        """Voices of these names, open inside the block.

        Raises:
            ConfigError: more names than voices that may be open.
            RamifyError: one of them cannot be opened; the others stay open.
        """
        voices = self._take(names)
        try:
            yield voices
        finally:
            with self._changed:
                self._lent -= Counter(names)
                self._changed.notify_all()

    def close(self) -> None:
        """Close all voices, those that are lent too: their requests end."""
        with self._changed:
            while self._open:
                self._open.popitem()[1].close()

    def _take(self, names: tuple[str, ...]) -> tuple[Voice, ...]:
        if len(set(names)) > self._keep:
            raise ConfigError(f"{len(set(names))} models at once: at most {self._keep} are kept open")
        with self._changed:
            self._changed.wait_for(lambda: len(set(names) | set(self._lent)) <= self._keep)
            voices = tuple(self._voice(name, names) for name in names)
            self._lent.update(names)
            return voices

    def _voice(self, name: str, needed: tuple[str, ...]) -> Voice:
        """The voice of that name; others go before it is opened, so that memory never holds one more."""
        if name not in self._open:
            idle = [each for each in self._open if each not in needed and each not in self._lent]
            coming = len(set(needed) - set(self._open))
            for each in idle[: max(len(self._open) + coming - self._keep, 0)]:
                self._open.pop(each).close()
            self._open[name] = self._opener(name)
        self._open.move_to_end(name)
        return self._open[name]
