"""The settings of a mix of data sets, as `config` has those of a run; `config_file` reads both.

The docstring under a field is its help text. Nothing here imports torch.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from ramify.base.config import Positive, Prompting, Section, Share

GENERIC_SYSTEM = (
    "You are a cautious assistant. You carefully follow instructions. You are helpful and harmless and you follow "
    "ethical guidelines and promote positive behavior."
)
"""The generic instruction of Orca 2 (Mitra et al. 2023, arXiv 2311.11045, section 4), without its names."""

Weight = Annotated[float, Field(gt=0)]
Text = Annotated[str, Field(min_length=1)]


class Erase(Section):
    """Prompt erasure: what becomes of the system turn a row came with (Orca 2, arXiv 2311.11045, section 4)."""

    mode: Literal["drop", "replace", "sample"] = "replace"
    """drop: no system turn; replace: `text` instead; sample: one of `texts` instead."""
    text: Text = GENERIC_SYSTEM
    """What stands in for the system turn (mode replace)."""
    texts: dict[str, Weight] = Field(default_factory=dict)
    """What may stand in for it, each with its weight; an empty text is no system turn (mode sample)."""
    share: Share = 1.0
    """Share of the rows that are changed; which ones is decided by seed and content."""
    when: tuple[Text, ...] = ()
    """Only these system turns: whole texts, white space folded, * for anything; none: all."""


class Origin(Section):
    """Where rows are read from."""

    path: Text = Field(alias="from")
    """A file, a folder, or a hub id."""
    config: str | None = None
    """Configuration of a hub data set."""
    split: str | None = None
    """Split of a data set that has several; None: train, of an evaluation test."""
    revision: str | None = None
    """Revision of a hub data set."""
    columns: dict[str, str] = Field(default_factory=dict)
    """What the columns mean where their names do not say it: {question: my_question, answer: my_answer}."""
    shape: str | None = None
    """Read all rows as this shape instead of recognising it by its columns."""


class MixSource(Origin):
    """One source of a mix."""

    name: Text
    """What the report and the rows call it."""
    weight: Weight
    """Its share of the mix, relative to the other weights."""
    stream: bool = False
    """Read a hub data set while it is downloaded, without keeping a copy of it."""
    limit: Positive | None = None
    """Use only the first rows."""
    optional: bool = False
    """Go on without this source when it cannot be read; otherwise that ends the mix."""
    system: Text | None = None
    """A system turn for rows that have none, put in before erasure."""
    erase: Erase | None = None
    """Prompt erasure of this source; null: none. Not given: that of the mix."""


class Evaluation(Origin):
    """Rows of an evaluation, whose questions are left out of a mix. A text alone is its `from`."""

    @model_validator(mode="before")
    @classmethod
    def _from_text(cls, given: Any) -> Any:
        return {"from": given} if isinstance(given, str) else given

    @property
    def name(self) -> str:
        """What the report calls it: `from`, and what is named besides."""
        named = [each for each in (self.config, self.split, self.revision) if each is not None]
        return f"{self.path} ({', '.join(named)})" if named else self.path


class MixConfig(Section):
    """One mix."""

    seed: int = 42
    """Seed of everything that is drawn."""
    sources: Annotated[tuple[MixSource, ...], Field(min_length=1)]
    rows: Positive | None = None
    """Rows of the mix, validation included. Without rows and tokens: as much as the weights allow."""
    tokens: Positive | None = None
    """Trained tokens of the mix; weights are then shares of trained tokens instead of rows."""
    short: Literal["cap", "repeat", "rebalance"] = "cap"
    """When a source has less than its share: cap, the mix gets smaller; repeat, its rows come again; rebalance, the
    others fill up by their weights."""
    dedup: Literal["none", "exact", "near"] = "exact"
    """exact: a conversation occurs once, white space and system turn as they are written; near: none resembles
    another either (needs rensa: pip install 'ramify[dedup]')."""
    similarity: Annotated[float, Field(gt=0.0, le=1.0)] = 0.8
    """Estimated Jaccard similarity of word triples from which two rows are near-duplicates."""
    decontaminate: tuple[Evaluation, ...] = ()
    """Evaluations: files, folders, hub ids, or {from, config, split, revision, columns, shape}; rows whose prompt
    overlaps with one of theirs are left out."""
    overlap: Positive = 13
    """Words in a row that two prompts have in common when they overlap; shorter prompts must be equal."""
    validation: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.05
    """Share of the rows for validation, told by a hash of the prompt, so that a question is on one side only."""
    bad_rows: Share = 0.0
    """Share of a source's rows that may be left out, counted with reasons, because they do not fit; one more stops."""
    max_length: Positive | None = None
    """Leave rows out that are longer, in tokens; None: keep all."""
    model: str = "nano"
    """Whose tokens are counted: a hub id, a local folder, a run, or nano. No weights are needed."""
    revision: str | None = None
    """Revision of a hub model."""
    prompt: Prompting = Prompting()
    """How rows are rendered to be counted, as in training."""
    erase: Erase | None = None
    """Prompt erasure of every source that has no setting of its own."""

    @model_validator(mode="after")
    def _consistent(self) -> MixConfig:
        for problem in (*self._contradictions(), *self._idle()):
            raise ValueError(problem)
        return self

    def _contradictions(self) -> Iterable[str]:
        names = [source.name for source in self.sources]
        yield from (f"sources: the name {name!r} is given twice" for name in sorted({*names}) if names.count(name) > 1)
        if self.rows is not None and self.tokens is not None:
            yield f"rows = {self.rows} and tokens = {self.tokens}: one of them decides the size"
        for place, erase in self.erasures():
            if erase.mode == "sample" and not erase.texts:
                yield f"{place}.mode = sample needs {place}.texts"

    def _idle(self) -> Iterable[str]:
        """Settings that were changed and would do nothing."""
        changed = _changed(self)
        if "short" in changed and self.rows is None and self.tokens is None:
            yield f"short = {self.short} needs rows or tokens: without them no source is asked for more than it has"
        if "similarity" in changed and self.dedup != "near":
            yield f"similarity = {self.similarity} needs dedup = near"
        if "overlap" in changed and not self.decontaminate:
            yield f"overlap = {self.overlap} needs decontaminate"
        for place, erase in self.erasures():
            for field, mode in (("text", "replace"), ("texts", "sample")):
                if field in _changed(erase) and erase.mode != mode:
                    yield f"{place}.{field} needs {place}.mode = {mode}; with {erase.mode} it would do nothing"

    @property
    def size(self) -> int | None:
        """Of the mix, in rows or trained tokens."""
        return self.tokens if self.counts_tokens else self.rows

    @property
    def counts_tokens(self) -> bool:
        """Whether weights and size count trained tokens; else rows."""
        return self.tokens is not None

    @property
    def unit(self) -> str:
        """What weights and size count."""
        return "trained tokens" if self.counts_tokens else "rows"

    def erasures(self) -> list[tuple[str, Erase]]:
        """Each erasure with the name under which it was set."""
        own = [(f"sources.{source.name}.erase", source.erase) for source in self.sources]
        return [(place, erase) for place, erase in (("erase", self.erase), *own) if erase is not None]

    def erase_of(self, source: MixSource) -> Erase | None:
        """The erasure that holds for a source."""
        return source.erase if "erase" in source.model_fields_set else self.erase

    def resolved(self) -> dict[str, Any]:
        """All settings as a file has them, defaults too; each source with the erasure that holds for it."""
        own = tuple(source.model_copy(update={"erase": self.erase_of(source)}) for source in self.sources)
        return self.model_copy(update={"sources": own}).model_dump(mode="json", by_alias=True)


def _changed(section: Section) -> set[str]:
    """Settings that are not at their defaults."""
    fields = type(section).model_fields
    return {
        name
        for name in section.model_fields_set
        if getattr(section, name) != fields[name].get_default(call_default_factory=True)
    }
