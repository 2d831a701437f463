"""Answers while they are written, of one model or of several beside each other, that can be stopped at any moment.

Models are asked by threads of their own. So Ctrl-C, which Python raises in the main thread, never falls into the
middle of what a service does.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from queue import Empty, SimpleQueue
from threading import Thread

from ramify.sample.service import Piece, Request, Service, Ticket

_WAIT = 0.5
"""Seconds of one wait for news: where a wait cannot be interrupted (Windows), Ctrl-C is heard behind it."""


class Answers:
    """What is new in the answers to some requests: (which request, piece), as it comes. They are asked when iteration
    begins.

    Raises:
        RamifyError: one of the requests was refused or failed; the others are stopped.
    """

    def __init__(self, asked: Sequence[tuple[Service, Request]]) -> None:
        self._asked = asked
        self._arrived: SimpleQueue[tuple[int, Piece] | BaseException | None] = SimpleQueue()
        self._tickets: list[Ticket] = []
        self._stopped = False

    def __iter__(self) -> Iterator[tuple[int, Piece]]:
        running = len(self._asked)
        try:
            for which, asked in enumerate(self._asked):
                Thread(target=self._follow, args=(which, *asked), name=f"answer {which}", daemon=True).start()
            while running:
                found = self._next()
                if isinstance(found, BaseException):
                    raise found
                if found is None:
                    running -= 1
                else:
                    yield found
        finally:
            self.stop()

    def stop(self) -> None:
        """Give up what is not finished; what comes of it anyway is not told."""
        self._stopped = True  # first this, then the tickets: a ticket that comes later sees it
        for ticket in list(self._tickets):
            ticket.cancel()

    def _next(self) -> tuple[int, Piece] | BaseException | None:
        while True:
            try:
                return self._arrived.get(timeout=_WAIT)
            except Empty:
                continue

    def _follow(self, which: int, service: Service, request: Request) -> None:
        try:
            ticket = service.submit(request)
            self._tickets.append(ticket)
            if self._stopped:
                ticket.cancel()
            for piece in ticket:
                self._arrived.put((which, piece))
            self._arrived.put(None)
        except BaseException as error:  # raised again where the answers are waited for
            self._arrived.put(error)
