"""One request from its first byte to its last: a place, a body, a turn, an answer; it ends when the client leaves."""

from __future__ import annotations

import asyncio
import sys
import traceback
from collections.abc import Callable, Coroutine, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing, suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from ramify.base.errors import RamifyError, unknown
from ramify.serve.http import asked
from ramify.serve.http.answers import Answer, ChatAnswer, CompletionAnswer
from ramify.serve.http.arrival import GoneError, left, read_body
from ramify.serve.http.asked import Asked
from ramify.serve.http.bodies import read_chat, read_completion
from ramify.serve.http.flow import Flow
from ramify.serve.http.gate import Gate
from ramify.serve.http.limits import Limits
from ramify.serve.http.refusals import NO_RETRY, RefusedError, as_refused
from ramify.serve.http.reply import Reply

if TYPE_CHECKING:
    from starlette.types import Receive, Scope, Send

    from ramify.serve.voices import Voice

_FAREWELL = 5.0  # seconds that telling of a failure may take; a client may have stopped reading


@dataclass(frozen=True)
class Floor:
    """What all requests share.

    Attributes:
        voices: the models by name.
        limits: how much is taken on.
        gate: places and turns.
        drawing: threads that read tickets, one for each turn.
        reading: the one thread that reads bodies and makes prompts: tokenizers are not made for several at once.
    """

    voices: Mapping[str, Voice]
    limits: Limits
    gate: Gate
    drawing: ThreadPoolExecutor
    reading: ThreadPoolExecutor = field(default_factory=lambda: ThreadPoolExecutor(1, "ramify-read"))

    @classmethod
    def of(cls, voices: Mapping[str, Voice], limits: Limits) -> Floor:
        """A floor with nobody on it."""
        return cls(voices, limits, Gate(limits), ThreadPoolExecutor(limits.parallel, "ramify-draw"))

    def close(self) -> None:
        """Let the threads end; requests that are still computed are not waited for."""
        self.drawing.shutdown(wait=False, cancel_futures=True)
        self.reading.shutdown(wait=False, cancel_futures=True)

    def voice(self, name: str) -> Voice:
        """The model of that name.

        Raises:
            RefusedError: there is none (404).
        """
        if name in self.voices:
            return self.voices[name]
        raise RefusedError(unknown("model", name[:200], self.voices), 404, param="model", code="model_not_found")


class Endpoint:
    """An ASGI application that answers one kind of request.

    Args:
        floor: shared with the others.
        read: a raw body to what is computed.
        write: what makes the answer.
    """

    def __init__(self, floor: Floor, read: Callable[[bytes, Floor], Asked], write: type[Answer]) -> None:
        self._floor, self._read, self._write = floor, read, write

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, with an error where there is one; never raises because of what a request holds."""
        reply = Reply(scope, receive, send)
        try:
            await self._in_time(scope, receive, reply)
        except GoneError:
            return
        except RamifyError as error:
            failure = as_refused(error)
        except Exception as error:
            traceback.print_exception(error, file=sys.stderr)
            failure = RefusedError(f"unexpected {type(error).__name__}; the server's own output shows where", 500)
        else:
            return
        with suppress(TimeoutError):
            async with asyncio.timeout(_FAREWELL):
                await reply.fail(failure)

    async def _in_time(self, scope: Scope, receive: Receive, reply: Reply) -> None:
        """Answer within the time limit.

        Raises:
            RefusedError: 408 when the body did not come in time, 504 when the answer was not finished.
            GoneError: the client left.
        """
        progress = _Progress()
        try:
            async with asyncio.timeout(self._floor.limits.timeout):
                with self._floor.gate.place():
                    raw = await read_body(scope, receive, self._floor.limits.body)
                    progress.read = True
                    await _while_present(receive, self._answer(raw, reply, progress))
        except TimeoutError:
            status = 504 if progress.read else 408
            limit = f"the time limit of {self._floor.limits.timeout:g} s"
            raise RefusedError(f"{limit} is over: {progress}", status, code="timeout", headers=NO_RETRY) from None

    async def _answer(self, raw: bytes, reply: Reply, progress: _Progress) -> None:
        ask = await asyncio.get_running_loop().run_in_executor(self._floor.reading, self._understood, raw)
        answer = self._write(ask)
        async with self._floor.gate.turn():
            progress.answer = answer
            await self._draw(ask, answer, reply)
        if not answer.finished:
            raise RefusedError("the model was closed before the answer was finished", 503)
        if not ask.stream:
            await reply.whole(answer.whole())
            return
        for event in answer.closing():
            await reply.event(event)
        await reply.done()

    def _understood(self, raw: bytes) -> Asked:
        """What a body asks for.

        Raises:
            RefusedError: nothing that is done here.
        """
        try:
            return self._read(raw, self._floor)
        except RecursionError:  # of the parser, or of whatever would quote a value that it has just read
            raise RefusedError("the body is nested too deeply") from None

    async def _draw(self, ask: Asked, answer: Answer, reply: Reply) -> None:
        """Collect the pieces; a stream begins with the first one, so that what is refused before has its status."""
        async with aclosing(Flow(ask.voice.service, ask.requests).pieces(self._floor.drawing)) as pieces:
            async for piece in pieces:
                if ask.stream and not reply.started:
                    for event in answer.opening():
                        await reply.event(event)
                answer.add(piece)
                news = answer.event(piece) if ask.stream else None
                if news is not None:
                    await reply.event(news)


@dataclass
class _Progress:
    """How far a request came, for whoever must be told that it came no further."""

    read: bool = False
    answer: Answer | None = None

    def __str__(self) -> str:
        if self.answer is not None:
            return f"{self.answer.drawn} tokens were drawn"
        return "the request still waited for its turn" if self.read else "the body had not come"


def chat(floor: Floor) -> Endpoint:
    """/v1/chat/completions."""

    def read(raw: bytes, floor: Floor) -> Asked:
        body = read_chat(raw)
        return asked.chat(body, floor.voice(body.model))

    return Endpoint(floor, read, ChatAnswer)


def completions(floor: Floor) -> Endpoint:
    """/v1/completions."""

    def read(raw: bytes, floor: Floor) -> Asked:
        body = read_completion(raw)
        return asked.completion(body, floor.voice(body.model))

    return Endpoint(floor, read, CompletionAnswer)


async def _while_present(receive: Receive, work: Coroutine[Any, Any, None]) -> None:
    """Do the work while the client is there.

    Raises:
        GoneError: it left, and the work was cancelled.
    """
    working, leaving = asyncio.ensure_future(work), asyncio.ensure_future(left(receive))
    try:
        await asyncio.wait({working, leaving}, return_when=asyncio.FIRST_COMPLETED)
        if not working.done():
            raise GoneError
        working.result()
    finally:
        working.cancel()
        leaving.cancel()
        await asyncio.gather(working, leaving, return_exceptions=True)
