"""Parity: is an export still the model that was trained? One table, a row for each stage and file.

The reference is the trained model as it was evaluated: the adapter on its base, in fp32. Everything else is read back
from the files that were written, and asked the same: the ids of the same prompts, the logits behind them, what it
writes when the likeliest token is taken each time, and where it stops.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

from ramify.base.config import Sampling
from ramify.base.errors import DataError
from ramify.base.types import Conversation, Sample, Stop
from ramify.export.agreement import Agreement, Logits, agreement, margins
from ramify.export.limits import EXACT, TIE, widened
from ramify.sample.sampler import PromptTokens, Sampler

NEW_TOKENS = 24
"""Tokens that each model writes behind each prompt."""
POSITIONS = 64
"""Last positions of each text whose logits are compared: they see all that stands before them."""

Ids = tuple[int, ...]


class Subject(Protocol):
    """A model that was read back: what it was trained as, or one of the files made of it."""

    @property
    def stop_ids(self) -> tuple[int, ...]:
        """Tokens that end what it writes."""
        ...

    def prompt_ids(self, conversation: Conversation) -> Ids:
        """Ids of a prompt as this model's own users get them: by its own template and its own tokenizer."""
        ...

    def known_ids(self, conversation: Conversation) -> Ids:
        """What its tokenizer is known to make of a prompt where it cannot do as the trained model's does."""
        ...

    def logits(self, ids: Ids, last: int) -> Logits:
        """Logits of the last positions, float32 [last, vocabulary], all positions computed anew."""
        ...

    @property
    def sampler(self) -> Sampler:
        """What writes with it."""
        ...


@dataclass(frozen=True, slots=True)
class Share:
    """So many of so many."""

    count: int
    total: int

    @property
    def all(self) -> bool:
        """Whether none is missing."""
        return self.count == self.total

    def __str__(self) -> str:
        return f"{self.count}/{self.total}"


@dataclass(frozen=True, slots=True)
class Reference:
    """What the trained model says to the probes.

    Attributes:
        prompts: their ids.
        texts: prompt and greedy completion together: what logits are compared on.
        logits: of the last positions of each text, but the very last, behind which nothing was written.
        samples: the greedy completions.
        stop_ids: tokens that end what it writes.
        kind: numeric format it was computed in: its rounding is part of every difference.
    """

    conversations: tuple[Conversation, ...]
    prompts: tuple[Ids, ...]
    texts: tuple[Ids, ...]
    logits: tuple[Logits, ...]
    samples: tuple[Sample, ...]
    stop_ids: tuple[int, ...]
    kind: str = "fp32"


@dataclass(frozen=True, slots=True)
class ParityRow:
    """One line of the table.

    Attributes:
        stage: what it is: `adapter`, `merged bf16`, `Q8_0`, …
        kind: its numeric format, which decides the limits.
        path: the file or folder, relative to the export; empty for the reference.
        size: bytes on disk.
        prompts: prompts whose ids are those of the reference.
        known: further ones whose ids differ as llama.cpp is known to differ: a space behind special tokens.
        agreement: of the logits; None for the reference itself.
        greedy: tokens written that are those of the reference (nearly tied choices may differ).
        stops: completions that end as those of the reference do.
        score: share of correct answers on the run's task, in the order (correct, asked); None: not asked for.
        failures: one sentence for each limit that is not kept; empty: the stage passes.
    """

    stage: str
    kind: str
    path: str
    size: int
    prompts: Share
    agreement: Agreement | None
    greedy: Share
    stops: Share
    known: int = 0
    score: Share | None = None
    failures: tuple[str, ...] = ()

    @property
    def passed(self) -> bool:
        """Whether every limit was kept."""
        return not self.failures


def reference(subject: Subject, conversations: Sequence[Conversation], kind: str = "fp32") -> Reference:
    """Ask the trained model."""
    prompts = tuple(subject.prompt_ids(each) for each in conversations)
    samples = tuple(_written(subject, prompts))
    texts = tuple(prompt + sample.token_ids for prompt, sample in zip(prompts, samples, strict=True))
    logits = tuple(_compared(subject, text) for text in texts)
    return Reference(tuple(conversations), prompts, texts, logits, samples, subject.stop_ids, kind)


def fitting(
    short: Iterable[Conversation], long: Iterable[Conversation], prompt_ids: Callable[[Conversation], Ids], room: int
) -> list[Conversation]:
    """All short conversations and the first long one with which the prompt leaves room for what is written.

    Conversations that the chat template refuses (a system turn, for one) are left out.
    """
    longest = next((each for each in long if _fits(each, prompt_ids, room)), None)
    found = [each for each in short if _fits(each, prompt_ids, room)]
    return found if longest is None else [*found, longest]


def _fits(conversation: Conversation, prompt_ids: Callable[[Conversation], Ids], room: int) -> bool:
    try:
        return len(prompt_ids(conversation)) + NEW_TOKENS <= room
    except DataError:
        return False


def compare(
    subject: Subject, expected: Reference, stage: str, kind: str, *, path: str = "", size: int = 0
) -> ParityRow:
    """Ask a model that was read back the same, and hold it against the limits of its kind."""
    own = [subject.prompt_ids(each) for each in expected.conversations]
    same = [a == b for a, b in zip(own, expected.prompts, strict=True)]
    other = zip(own, expected.conversations, same, strict=True)
    known = sum(ids == subject.known_ids(asked) for ids, asked, equal in other if not equal)
    prompts = Share(sum(same), len(own))
    logits = [_compared(subject, text) for text in expected.texts]
    found = agreement(expected.logits, logits)
    written = _written(subject, expected.prompts)
    greedy, stops = _same_tokens(expected, written), _same_ends(expected, written)
    missing = sorted(set(expected.stop_ids) - set(subject.stop_ids))
    row = ParityRow(stage, kind, path, size, prompts, found, greedy, stops, known)
    return replace(row, failures=tuple(_failures(row, missing, expected.kind)))


def as_row(expected: Reference, stage: str, kind: str, *, path: str = "", size: int = 0) -> ParityRow:
    """The line of the reference itself: all of it is so by definition."""
    tokens = sum(len(each.token_ids) for each in expected.samples)
    every = len(expected.prompts)
    return ParityRow(stage, kind, path, size, Share(every, every), None, Share(tokens, tokens), Share(every, every))


def _written(subject: Subject, prompts: Sequence[Ids]) -> list[Sample]:
    """What it writes behind each prompt, taking the likeliest token each time."""
    asked = [PromptTokens(str(number), ids) for number, ids in enumerate(prompts)]
    samples = subject.sampler.sample(asked, Sampling(max_new_tokens=NEW_TOKENS), seed=0)  # nothing is drawn
    return [found[0] for found in samples]


def _compared(subject: Subject, text: Ids) -> Logits:
    last = min(POSITIONS, len(text) - 1)
    return subject.logits(text[:-1], last)


def _same_tokens(expected: Reference, written: Sequence[Sample]) -> Share:
    """Tokens up to the first that differs; behind a near tie the rest counts as the same: no one can tell."""
    same = total = 0
    for number, (ours, theirs) in enumerate(zip(expected.samples, written, strict=True)):
        a, b = ours.token_ids, theirs.token_ids
        total += len(a)
        place = next((i for i in range(len(a)) if i >= len(b) or a[i] != b[i]), len(a))
        tied = place < len(a) and _margin(expected, number, place) < TIE
        same += len(a) if tied else place
    return Share(same, total)


def _margin(expected: Reference, number: int, place: int) -> float:
    """How far ahead the reference's token was at one place of its completion."""
    rows, written = expected.logits[number], len(expected.samples[number].token_ids)
    return float(margins(rows[len(rows) - written + place][None])[0])


def _same_ends(expected: Reference, written: Sequence[Sample]) -> Share:
    """Completions that reach their end as the reference does: by a stop token, or not at all."""
    pairs = list(zip(expected.samples, written, strict=True))
    same = [
        (a.stop is Stop.EOS) == (b.stop is Stop.EOS) or a.token_ids != b.token_ids[: len(a.token_ids)] for a, b in pairs
    ]
    return Share(sum(same), len(pairs))


def _failures(row: ParityRow, missing: Sequence[int], reference_kind: str) -> Iterable[str]:
    wrong = row.prompts.total - row.prompts.count - row.known
    if wrong:
        yield f"{wrong} of {row.prompts.total} prompts become other token ids"
    assert row.agreement is not None
    limit = widened(row.kind, reference_kind)
    exact = row.kind in EXACT and reference_kind in EXACT
    if not row.agreement.kl <= (float("inf") if limit is None else limit):  # a KL that is not a number fails too
        yield f"KL divergence {row.agreement.kl:.2g}, at most {limit:g} is rounding"
    if exact and not row.greedy.all:
        yield f"greedy text differs: {row.greedy} tokens"
    if missing:
        yield f"does not stop at token {', '.join(map(str, missing))}"
    elif exact and not row.stops.all:
        yield f"{row.stops.total - row.stops.count} of {row.stops.total} completions end otherwise"


def size_of(path: Path) -> int:
    """Bytes of a file, or of all files in a folder."""
    return (
        path.stat().st_size
        if path.is_file()
        else sum(each.stat().st_size for each in path.rglob("*") if each.is_file())
    )
