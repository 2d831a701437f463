"""Places for requests in hand, and turns to be computed: whoever finds no place is sent away."""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager

from ramify.serve.http.limits import Limits
from ramify.serve.http.refusals import RefusedError

_PATIENCE = 60
_OLD = 0.8  # weight of what was known before in the mean length of a request


class Gate:
    """Places for requests in hand, and turns to be computed, first come first served.

    Attributes:
        admitted: requests that have a place.
        active: those of them that are being computed.
    """

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._turns = asyncio.Semaphore(limits.parallel)
        self._mean = 1.0
        self.admitted = 0
        self.active = 0

    @property
    def waiting(self) -> int:
        """Requests that have a place and wait for their turn (or are still being sent)."""
        return self.admitted - self.active

    @contextmanager
    def place(self) -> Iterator[None]:
        """A place inside the block.

        Raises:
            RefusedError: all are taken; says when one is likely to be free.
        """
        if self.admitted >= self._limits.parallel + self._limits.queue:
            raise RefusedError(
                f"{self.active} requests are computed and {self.waiting} wait, as many as are allowed; try again later",
                429,
                code="rate_limit_exceeded",
                headers={"Retry-After": str(self._until_free())},
            )
        self.admitted += 1
        try:
            yield
        finally:
            self.admitted -= 1

    @asynccontextmanager
    async def turn(self) -> AsyncIterator[None]:
        """A turn inside the block, waited for."""
        async with self._turns:
            clock = asyncio.get_running_loop().time
            began = clock()
            self.active += 1
            try:
                yield
            finally:
                self.active -= 1
                self._mean = _OLD * self._mean + (1 - _OLD) * (clock() - began)

    def _until_free(self) -> int:
        """Seconds until one of the requests is likely to end."""
        return min(max(math.ceil(self._mean / self._limits.parallel), 1), _PATIENCE)
