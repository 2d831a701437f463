"""A ticket's blocking iteration, brought to the event loop by a thread; there are as many threads as turns."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncGenerator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

from ramify.sample.service import Piece, Request, Service, Ticket


class Flow:
    """The pieces of several requests to one service, on an event loop.

    All are submitted at once, so that they are computed side by side, and read one after the other. The choices of
    the second request are counted on from those of the first.
    """

    def __init__(self, service: Service, requests: Sequence[Request]) -> None:
        self._service, self._requests = service, requests
        self._loop = asyncio.get_running_loop()
        self._pieces: asyncio.Queue[Piece | BaseException | None] = asyncio.Queue()
        self._tickets: list[Ticket] = []
        self._lock = threading.Lock()
        self._cancelled = False

    async def pieces(self, threads: ThreadPoolExecutor) -> AsyncGenerator[Piece, None]:
        """The pieces as they come. When the iterator is closed, or its task cancelled, the requests are given up.

        Raises:
            RamifyError: a request is refused, or the model failed.
        """
        working = threads.submit(self._work)
        try:
            while (piece := await self._pieces.get()) is not None:
                if isinstance(piece, BaseException):
                    raise piece
                yield piece
        finally:
            working.cancel()  # where it has not begun
            self.cancel()

    def cancel(self) -> None:
        """Give all requests up."""
        with self._lock:
            self._cancelled = True
            tickets = list(self._tickets)
        for ticket in tickets:
            ticket.cancel()

    def _work(self) -> None:
        """In a thread: submit, read, and hand over."""
        try:
            for request in self._requests:
                self._accept(self._service.submit(request))
            first = 0
            for request, ticket in zip(self._requests, self._tickets, strict=True):
                for piece in ticket:
                    self._hand_over(replace(piece, index=first + piece.index))
                first += request.settings.n
            self._hand_over(None)
        except BaseException as error:
            self._hand_over(error)

    def _accept(self, ticket: Ticket) -> None:
        with self._lock:
            self._tickets.append(ticket)
            cancelled = self._cancelled
        if cancelled:
            ticket.cancel()

    def _hand_over(self, piece: Piece | BaseException | None) -> None:
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._pieces.put_nowait, piece)
