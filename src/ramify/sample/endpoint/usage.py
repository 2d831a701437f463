"""What an endpoint was asked, and what it counted: the cost of samples in tokens."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, fields
from typing import Any

from ramify.base.errors import RunError
from ramify.base.records import to_plain
from ramify.base.runs import Run


@dataclass(frozen=True, slots=True)
class Usage:
    """Requests and tokens, as the endpoint's own answers have them.

    Attributes:
        requests: sent, those that were sent again included.
        repeated: of these, sent again after a refusal for the moment, a time-out or nonsense.
        prompt_tokens: of answered requests; each request counts its whole prompt.
        completion_tokens: of answered requests.
        uncounted: answered requests whose answer did not say how many tokens it cost.
    """

    requests: int = 0
    repeated: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    uncounted: int = 0

    def __add__(self, other: Usage) -> Usage:
        return Usage(*(getattr(self, each.name) + getattr(other, each.name) for each in fields(Usage)))

    @property
    def words(self) -> str:
        """One line for people."""
        said = f"{self.requests:,} requests, {self.prompt_tokens:,} prompt and {self.completion_tokens:,} new tokens"
        said += f", {self.repeated:,} sent again" if self.repeated else ""
        return said + (f", {self.uncounted:,} answers without a count" if self.uncounted else "")


@contextmanager
def accounted(run: Run, usage: Callable[[], Usage]) -> Iterator[None]:
    """Add what the block spends to run.json, also when it is interrupted."""
    before = usage_from(run.record)
    try:
        yield
    finally:
        spent = usage()
        if spent.requests:
            with suppress(RunError):  # on a full disk the error that is on its way says more
                run.update(usage=to_plain(before + spent))


def usage_from(record: Mapping[str, Any]) -> Usage:
    """What run.json says was spent so far; nothing when it says nothing."""
    found = record.get("usage") or {}
    return Usage(**{each.name: int(found.get(each.name, 0)) for each in fields(Usage)})
