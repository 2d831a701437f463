"""The first pass of a mix: a source is read once, and what can be used is set aside with its keys and lengths.

Memory holds one chunk of rows, and 44 bytes for each entry.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import islice
from pathlib import Path

import numpy as np

from ramify.base.config_mix import MixConfig, MixSource
from ramify.base.errors import ConfigError, DataError
from ramify.base.progress import Progress
from ramify.base.rng import key
from ramify.base.types import Conversation
from ramify.data.fields import Place
from ramify.data.mix.erase import Erased, erase
from ramify.data.mix.origin import origin_of
from ramify.data.mix.overlap import Overlap
from ramify.data.mix.records import Drop, Entry, Kind, Outcome, entries_of, folded
from ramify.data.mix.shelf import ROW, Counts, Index, Shelf, Taken
from ramify.data.source import Source
from ramify.data.sources import Row, stream_rows
from ramify.prompts.many import Encoded, encode_many
from ramify.prompts.renderer import Renderer

_AT_ONCE = 512
_BETWEEN = "\x1f"
"""Stands between the parts of a key."""


@dataclass(frozen=True, slots=True)
class Rules:
    """What holds for all sources of a mix.

    Attributes:
        renderer: counts tokens.
        overlap: questions of evaluations.
    """

    config: MixConfig
    renderer: Renderer
    overlap: Overlap


@dataclass(frozen=True, slots=True)
class _Size:
    """Of an entry, in tokens."""

    tokens: int
    trained: int
    longest: int


@dataclass(frozen=True, slots=True)
class _Candidate:
    """An entry on its way into the mix: its key as it was read, what it asks there, and what it became."""

    place: Place
    key: int
    prompt: Conversation
    erased: Erased


def take_in(folder: Path, source: MixSource, rules: Rules, kind: Kind | None, settings: str, watch: Progress) -> Taken:
    """Read a source and set aside what can be used.

    Args:
        folder: its own; made here.
        kind: what the entries of the mix are, when it is known.
        settings: hash of what decides the outcome.

    Raises:
        DataError: it cannot be read, or more rows than allowed cannot be used.
        ConfigError: its entries are not all of the mix's kind.
    """
    with Shelf(folder) as shelf:
        intake = _Intake(source, rules, kind, shelf)
        index = intake.run(watch)
        return shelf.finish(source, settings, intake.counts, index)


class _Intake:
    """Reads one source."""

    def __init__(self, source: MixSource, rules: Rules, kind: Kind | None, shelf: Shelf) -> None:
        self.source, self.config, self.rules = source, rules.config, rules
        self.kind, self.shelf = kind, shelf
        self.erase = rules.config.erase_of(source)
        self.counts = Counts()
        self._origin = source_of(source, rules.config)
        self._lineage = _lineage(self._origin)
        self._worst: DataError | None = None
        self._last_bad: Place | None = None

    def run(self, watch: Progress) -> Index:
        """Read all rows of the source."""
        stream = stream_rows(self._origin)
        rows = iter(stream)
        parts: list[Index] = [np.zeros(0, ROW)]
        watch.start(f"reading {self.source.name}", None)
        try:
            while chunk := list(islice(rows, _AT_ONCE)):
                parts.append(self._chunk(chunk))
                watch.update(stream.count)
        finally:
            watch.close()
        counts = self.counts
        counts.read, counts.shapes, counts.said = stream.count, stream.shapes, stream.summary()
        counts.ignored = stream.ignored
        counts.dropped += Counter({Drop.UNFIT.value: stream.bad.count, Drop.UNWANTED.value: stream.unwanted})
        counts.bad += stream.bad.count
        self._refuse_bad()
        return np.concatenate(parts)

    def _chunk(self, rows: Sequence[Row]) -> Index:
        candidates = [
            self._candidate(row.place, entry)
            for row in rows
            for entry in self._entries(row)
            if not self._is_contaminated(entry)
        ]
        sizes = self._sizes(candidates)
        fitting = [(each, size) for each, size in zip(candidates, sizes, strict=True) if size is not None]
        return np.array([self._set_aside(each, size) for each, size in fitting], ROW)

    def _entries(self, row: Row) -> list[Entry]:
        entries = entries_of(row)
        if not entries and not row.decoded.unwanted:
            said = f"holds {Drop.NOTHING.value}: it is of the shape {row.shape}"
            self._bad(Drop.NOTHING, DataError(said, hint=_answers_as_they_stand(row, self.source)), row.place)
        for entry in entries:
            if self.kind is not None and entry.kind is not self.kind:
                hint = "conversations, pairs and plain texts are mixes of their own"
                raise ConfigError(f"{row.place.source}: {entry.kind.value} in a mix of {self.kind.value}", hint=hint)
            self.kind = entry.kind
            self.counts.kind = entry.kind.value
        return entries

    def _candidate(self, place: Place, entry: Entry) -> _Candidate:
        name, prompt = _key(entry), entry.prompt
        if entry.system is None and self.source.system is not None:
            if entry.kind is Kind.TEXT:
                raise ConfigError(f"{place.source}: system: a plain text has no turns to put it before")
            entry = entry.with_system(self.source.system)
        if self.erase is None:
            return _Candidate(place, name, prompt, Erased(entry, None, Outcome.KEPT))
        erased = erase(entry, self.erase, self.config.seed, name)
        self.counts.outcomes[erased.outcome.value] += 1
        return _Candidate(place, name, prompt, erased)

    def _is_contaminated(self, entry: Entry) -> bool:
        evaluation = self.rules.overlap.find(entry.turns)
        if evaluation is not None:
            self.counts.overlaps[evaluation] += 1
            self.counts.dropped[Drop.CONTAMINATED.value] += 1
        return evaluation is not None

    def _sizes(self, candidates: Sequence[_Candidate]) -> Iterator[_Size | None]:
        """Of each candidate; None of those that are left out."""
        examples = [each.erased.entry.examples() for each in candidates]
        encoded = iter(encode_many(self.rules.renderer, [each for some in examples for each in some]))
        for candidate, some in zip(candidates, examples, strict=True):
            size = _size(list(islice(encoded, len(some))))
            if isinstance(size, DataError):
                self._bad(Drop.UNRENDERED, size, candidate.place)
                yield None
            elif self.config.max_length is not None and size.longest > self.config.max_length:
                self.counts.dropped[Drop.LONG.value] += 1
                yield None
            else:
                yield size

    def _set_aside(self, candidate: _Candidate, size: _Size) -> tuple[int, ...]:
        """The record of an entry whose line has been written."""
        entry, original = candidate.erased.entry, candidate.erased.original
        plain = {"row": self._lineage(candidate.place), "key": f"{candidate.key:016x}", **entry.plain()}
        if original is not None:
            plain["original_system"] = original
        self.counts.weighted |= entry.is_weighted
        self.counts.graded |= bool(entry.margin)
        start, length = self.shelf.put(plain)
        asked = key("prompt", _BETWEEN.join(folded(turn.content).casefold() for turn in candidate.prompt))
        return candidate.key, _key(entry, folded), asked, start, length, size.tokens, size.trained

    def _bad(self, drop: Drop, error: DataError, place: Place) -> None:
        """An entry that cannot be used; its row is bad, and counts once however many of its completions are.

        Raises:
            DataError: none is allowed.
        """
        self.counts.dropped[drop.value] += 1
        self.counts.bad += place != self._last_bad
        self._last_bad = place
        worst = self._worst = self._worst or DataError(f"{place.source}: {error.message}", hint=error.hint)
        if not self.config.bad_rows:
            hint = worst.hint or "bad_rows=0.01 leaves out up to one row in a hundred"
            raise DataError(worst.message, hint=hint)

    def _refuse_bad(self) -> None:
        bad, read, allowed, worst = self.counts.bad, self.counts.read, self.config.bad_rows, self._worst
        if worst is not None and bad > allowed * read:
            found = f"{bad} of {read} rows cannot be used, more than bad_rows = {allowed:g} allows"
            raise DataError(f"{found}; first: {worst.message}", path=self.source.path, hint=worst.hint)


def source_of(source: MixSource, config: MixConfig) -> Source:
    """Where the rows of a source are read from."""
    return origin_of(source, stream=source.stream, bad_rows=config.bad_rows, limit=source.limit)


def _answers_as_they_stand(row: Row, source: MixSource) -> str | None:
    """How to imitate the answers of questions that are not worked out, where they are texts."""
    problem = row.decoded.problem
    if row.shape != "question_answer" or problem is None or not isinstance(problem.answer, str):
        return None
    asked, answer = (source.columns.get(name, name) for name in ("question", "answer"))
    return f"columns: {{prompt: {asked}, completion: {answer}}} imitates the answers as they stand"


def _size(encoded: Sequence[list[Encoded] | DataError]) -> _Size | DataError:
    """From what the examples of one entry became."""
    found: list[list[Encoded]] = []
    for each in encoded:
        if isinstance(each, DataError):
            return each
        found.append(each)
    answers = [[len(one.completion) for one in each] for each in found]
    prompts = [len(each[0].prompt) for each in found]
    return _Size(
        tokens=prompts[-1] + sum(answers[-1]),
        trained=sum(map(sum, answers)),
        longest=max(prompt + max(each) for prompt, each in zip(prompts, answers, strict=True)),
    )


def _key(entry: Entry, form: Callable[[str], str] = str) -> int:
    """64 bits of everything an entry says, each text in a form; as it is written, with its weights and its margin."""
    turns = [part for turn in entry.turns for part in (turn.role, form(turn.content))]
    weights = [f"{weight:g}" for weight in entry.weights] if entry.is_weighted and form is str else []
    margin = [repr(entry.margin)] if entry.margin and form is str else []
    return key("entry", _BETWEEN.join([*turns, *weights, "answers", *map(form, entry.answers or ()), *margin]))


def _lineage(source: Source) -> Callable[[Place], str]:
    """How the place of a row is written: within its source, so that it does not say where the source lay."""
    if source.hub_id is not None:
        return lambda place: place.source
    root = Path(source.name)

    @cache
    def within(path: Path) -> str:
        inside = path != root and path.is_relative_to(root)
        return path.relative_to(root).as_posix() if inside else path.name

    return lambda place: f"{within(place.path)}:{place.line}"
