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
    back; voices that are needed together are asked for together, so that no two wait for each other. While one is
    opened, those that are open are lent and given back as ever.

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
        self._opening = False  # one at a time: libraries that load weights change settings of the whole process

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
            self._give_back(names)

    def close(self) -> None:
        """Close all voices, those that are lent too: their requests end. One that is being opened is waited for."""
        with self._changed:
            self._changed.wait_for(lambda: not self._opening)
            while self._open:
                self._open.popitem()[1].close()

    def _take(self, names: tuple[str, ...]) -> tuple[Voice, ...]:
        if len(set(names)) > self._keep:
            raise ConfigError(f"{len(set(names))} models at once: at most {self._keep} are kept open")
        with self._changed:
            self._changed.wait_for(lambda: self._have_room(names))
            self._lent.update(names)  # from here on nobody closes them, those to come included
            found = {name: self._open[name] for name in names if name in self._open}
            for name in found:
                self._open.move_to_end(name)
            missing = [name for name in dict.fromkeys(names) if name not in found]
            self._opening |= bool(missing)
        try:
            found |= self._opened(missing)
        except BaseException:
            self._give_back(names)
            raise
        return tuple(found[name] for name in names)

    def _have_room(self, names: tuple[str, ...]) -> bool:
        """Whether these can be lent beside what is lent already, and nobody else is opening where one is missing."""
        waits = self._opening and any(name not in self._open for name in names)
        return not waits and len(set(names) | set(self._lent)) <= self._keep

    def _make_room(self, coming: int) -> None:
        """Close what was used longest ago, before anything is opened, so that memory never holds one more."""
        idle = [name for name in self._open if name not in self._lent]
        for name in idle[: max(len(self._open) + coming - self._keep, 0)]:
            self._open.pop(name).close()

    def _opened(self, missing: list[str]) -> dict[str, Voice]:
        """Open what is missing; whoever has another one goes on meanwhile."""
        if not missing:
            return {}
        found = {}
        try:
            with self._changed:
                self._make_room(len(missing))
            for name in missing:
                found[name] = self._opener(name)
                with self._changed:
                    self._open[name] = found[name]
        finally:
            with self._changed:
                self._opening = False
                self._changed.notify_all()
        return found

    def _give_back(self, names: tuple[str, ...]) -> None:
        with self._changed:
            self._lent -= Counter(names)
            self._changed.notify_all()
