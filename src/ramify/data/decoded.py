"""What one row becomes, and how problems and examples are made from what it says."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from ramify.base.rng import key
from ramify.base.types import Completion, Conversation, Example, Pair, Problem
from ramify.data.fields import Place


class Decoded(NamedTuple):
    """What one row became.

    Attributes:
        examples: what it gives to imitate: one example a trained assistant turn, in order.
        unanswered: user turns behind the last trained one, of which nothing is trained.
        named: whether the problem's id stands in the row.
        unwanted: completions that are not to be imitated, because their reward is not above 0 or their label is false.
    """

    problem: Problem | None = None
    examples: tuple[Example, ...] = ()
    pair: Pair | None = None
    unwanted: int = 0
    unanswered: int = 0
    named: bool = False

    @property
    def is_empty(self) -> bool:
        """Whether nothing can be asked, imitated or compared: all of the row's completions are unwanted."""
        return self.problem is None and not self.examples and self.pair is None


def make_problem(
    prompt: Conversation,
    answer: str | float | None,
    place: Place,
    *,
    solution: str | None = None,
    options: tuple[str, ...] = (),
) -> Problem:
    """A problem whose id follows from what is asked and what is right, so that it survives shuffling and cutting."""
    parts = [part for message in prompt for part in (message.role, message.content)]
    name = f"{key(*parts, repr(answer)):016x}"
    return Problem(id=name, prompt=prompt, answer=answer, solution=solution, source=place.source, options=options)


def make_example(prompt: Conversation, text: str, place: Place, weight: float = 1.0) -> Example:
    """One completion to imitate."""
    return Example(prompt, (Completion(text, weight),), place.source)


def meta_field(row: Mapping[str, Any], place: Place) -> dict[str, str]:
    """The row's `meta`: texts by name; none is an empty one.

    Raises:
        DataError: it is no object.
    """
    meta = row.get("meta") or {}
    if not isinstance(meta, dict):
        raise place.error("meta", meta, "an object")
    return {str(name): str(value) for name, value in meta.items()}
