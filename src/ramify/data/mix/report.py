"""What a mix holds: wanted and real shares of each source and why they differ, lengths, and what was left out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import yaml

from ramify.base.config_mix import MixConfig
from ramify.base.records import to_plain
from ramify.data.mix.choose import Integers, Keys, Picks, Quota
from ramify.data.mix.intake import Rules
from ramify.data.mix.reasons import notes, why
from ramify.data.mix.shelf import Taken

QUANTILES = (0.5, 0.9, 0.99, 1.0)


@dataclass(frozen=True, slots=True)
class Amount:
    """Rows, their tokens, and how many of those are trained."""

    rows: int
    tokens: int
    trained: int


@dataclass(frozen=True, slots=True)
class Part:
    """One source in the mix.

    Attributes:
        wanted_share: its weight among all weights, of rows or trained tokens as the mix counts.
        share_of_rows, share_of_trained: what it has of the mix.
        wanted: what it was asked for in that unit; None where the mix has no size.
        there: what it has to give.
        amount: what the mix has of it, copies included.
        distinct: rows of the mix that are no copies.
        why: why share and wanted share differ by more than a row, or why its rows are repeated; empty where neither.
        read: its rows.
        bad: those of them that cannot be used, or not whole.
        shapes: how they were read.
        ignored: columns that mean nothing in the shape of their row, and are not in the mix, with the number of rows.
        entries: what they gave: conversations, pairs, or one for each completion; a row that gives none counts as one.
        left_out: entries by reason.
        overlaps: contaminated entries by evaluation.
        erasure: entries by what became of their system turn; empty without erasure.
        lengths: quantiles of the rows' lengths in tokens.
        said: rows, shapes, and what was left out with reasons and places, in a line.
    """

    name: str
    wanted_share: float
    share_of_rows: float
    share_of_trained: float
    wanted: int | None
    there: int
    amount: Amount
    distinct: int
    why: str
    read: int
    bad: int
    shapes: dict[str, int]
    ignored: dict[str, int]
    entries: int
    left_out: dict[str, int]
    overlaps: dict[str, int]
    erasure: dict[str, int]
    lengths: dict[str, int]
    said: str


@dataclass(frozen=True, slots=True)
class Evaluated:
    """An evaluation whose questions are not in the mix.

    Attributes:
        split: the one that was read; of a folder what it is called there; empty of a file.
        questions: how many it has.
        left_out: entries that overlap with one of them, of all sources.
    """

    name: str
    split: str
    questions: int
    left_out: int


@dataclass(frozen=True, slots=True)
class Report:
    """The whole mix.

    Attributes:
        unit: what weights and sizes count: rows or trained tokens.
        size: what was asked for, in that unit.
        evaluations: what was decontaminated of.
        splits: what each side has.
        notes: what a reader should know.
        settings: of the mix, as a file of settings has them.
    """

    kind: str
    unit: str
    size: int | None
    parts: list[Part]
    evaluations: list[Evaluated]
    splits: dict[str, Amount]
    notes: list[str]
    settings: dict[str, Any]

    @property
    def total(self) -> Amount:
        """Of all sources."""
        return _sum(part.amount for part in self.parts)

    def plain(self) -> dict[str, Any]:
        """Ready for JSON."""
        return {"total": to_plain(self.total), **to_plain(self)}

    def shares(self) -> list[tuple[str, ...]]:
        """Lines of a table: see `SHARE_COLUMNS`; the total last."""
        lines = []
        for part in self.parts:
            shares = (part.wanted_share, part.share_of_rows, part.share_of_trained)
            lines.append((part.name, *map(_percent, shares), *_figures(part.amount)))
        return [*lines, ("all", "", "", "", *_figures(self.total))]

    def sides(self) -> list[tuple[str, ...]]:
        """Lines of a table: split, rows, tokens, trained tokens."""
        return [(name, *_figures(amount)) for name, amount in self.splits.items()]

    def dropped(self) -> list[tuple[str, ...]]:
        """Lines of a table: see `DROPPED_COLUMNS`."""
        return [(part.name, f"{part.read:,}", f"{part.entries:,}", _counts(part.left_out)) for part in self.parts]

    def decontamination(self) -> list[tuple[str, ...]]:
        """Lines of a table: see `EVALUATION_COLUMNS`."""
        return [(each.name, each.split, f"{each.questions:,}", f"{each.left_out:,}") for each in self.evaluations]

    def erasure(self) -> list[tuple[str, ...]]:
        """Lines of a table: source, and what became of the system turns of all that was read; none without erasure."""
        return [(part.name, _counts(part.erasure)) for part in self.parts if part.erasure]

    def markdown(self) -> str:
        """As a page."""
        sections = [
            f"# A mix of {len(self.parts)} sources: {self.total.rows:,} {self.kind}",
            _table(SHARE_COLUMNS, self.shares()),
            "\n".join(f"- {line}" for line in [*self.why(), *self.notes]),
            "## Lengths, in tokens",
            _table(("source", "median", "90 %", "99 %", "longest"), [_lengths(part) for part in self.parts]),
            "## Splits",
            _table(("split", *FIGURES), self.sides()),
            "## Left out",
            _table(DROPPED_COLUMNS, self.dropped()),
            "\n".join(f"- {part.name}: {part.said}" for part in self.parts if part.said),
            *((_table(EVALUATION_COLUMNS, self.decontamination()),) if self.evaluations else ()),
            *(("## Prompt erasure", _table(("source", "rows read"), self.erasure())) if self.erasure() else ()),
            "## Settings",
            f"```yaml\n{yaml.safe_dump(self.settings, sort_keys=False, allow_unicode=True)}```",
        ]
        return "\n\n".join(section for section in sections if section) + "\n"

    def why(self) -> list[str]:
        """A line for each source whose share is not the wanted one, or whose rows are repeated."""
        return [f"{part.name}: {part.why}" for part in self.parts if part.why]


FIGURES = ("rows", "tokens", "trained tokens")
SHARE_COLUMNS = ("source", "wanted share", "of rows", "of trained tokens", *FIGURES)
DROPPED_COLUMNS = ("source", "rows read", "entries", "left out of them")
EVALUATION_COLUMNS = ("evaluation", "split", "questions", "entries that overlap")


def make_report(
    rules: Rules, taken: Sequence[Taken], dropped: Sequence[Counter[str]], quotas: Sequence[Quota], picks: Picks
) -> Report:
    """Count what was picked.

    Args:
        dropped: of each source, what was left out in comparison with others (duplicates), by reason.
    """
    config, picked = rules.config, [picks.of(at) for at in range(len(taken))]
    amounts = [_amount(source, entries) for source, entries in zip(taken, picked, strict=True)]
    reasons = _reasons(config, taken, quotas, picked)
    parts = [
        _part(*each) for each in zip(taken, picked, dropped, quotas, _shares(config, amounts), reasons, strict=True)
    ]
    return Report(
        kind=next(source.counts.kind for source in taken if source.counts.kind),
        unit=config.unit,
        size=config.size,
        parts=parts,
        evaluations=_evaluations(rules, taken),
        splits={name: _split(taken, picks, side) for name, side in (("train", False), ("validation", True))},
        notes=notes(config, _prompts(taken, picked), float(picks.validation.mean())),
        settings=config.resolved(),
    )


def _part(
    source: Taken, entries: Integers, dropped: Counter[str], quota: Quota, shares: Sequence[float], reason: str
) -> Part:
    counts = source.counts
    return Part(
        name=source.source.name,
        wanted_share=shares[0],
        share_of_rows=shares[1],
        share_of_trained=shares[2],
        wanted=quota.wanted,
        there=quota.there,
        amount=_amount(source, entries),
        distinct=len(np.unique(entries)),
        why=reason,
        read=counts.read,
        bad=counts.bad,
        shapes=dict(sorted(counts.shapes.items())),
        ignored=dict(sorted(counts.ignored.items())),
        entries=len(source.index) + counts.dropped.total(),
        left_out=dict(sorted((counts.dropped + dropped).items())),
        overlaps=dict(sorted(counts.overlaps.items())),
        erasure=dict(sorted(counts.outcomes.items())),
        lengths=_quantiles(source.index["tokens"][entries]),
        said=counts.said,
    )


def _shares(config: MixConfig, amounts: Sequence[Amount]) -> list[tuple[float, ...]]:
    """What each source was to have of the whole, and what it has of rows and of trained tokens."""
    columns = (
        [source.weight for source in config.sources],
        [amount.rows for amount in amounts],
        [amount.trained for amount in amounts],
    )
    return list(zip(*([round(each / sum(column), 6) for each in column] for column in columns), strict=True))


def _reasons(
    config: MixConfig, taken: Sequence[Taken], quotas: Sequence[Quota], picked: Sequence[Integers]
) -> list[str]:
    """Of each source why its share is another one."""
    if not config.counts_tokens:
        return why(config, taken, quotas, [len(entries) for entries in picked], 1)
    trained = [source.index["trained"][entries] for source, entries in zip(taken, picked, strict=True)]
    longest = max(int(each.max(initial=1)) for each in trained)
    return why(config, taken, quotas, [int(each.sum()) for each in trained], longest)


def _evaluations(rules: Rules, taken: Sequence[Taken]) -> list[Evaluated]:
    overlap, found = rules.overlap, sum((source.counts.overlaps for source in taken), Counter[str]())
    return [Evaluated(name, split, overlap.questions[name], found[name]) for name, split in overlap.splits.items()]


def _prompts(taken: Sequence[Taken], picked: Sequence[Integers]) -> Keys:
    """Key of the prompt of each row; in no order."""
    return np.concatenate([source.index["prompt"][entries] for source, entries in zip(taken, picked, strict=True)])


def _amount(source: Taken, entries: Integers) -> Amount:
    rows = source.index[entries]
    return Amount(len(rows), int(rows["tokens"].sum()), int(rows["trained"].sum()))


def _split(taken: Sequence[Taken], picks: Picks, validation: bool) -> Amount:
    on_side = picks.validation == validation
    return _sum(_amount(source, picks.entry[on_side & (picks.source == at)]) for at, source in enumerate(taken))


def _sum(amounts: Iterable[Amount]) -> Amount:
    found = list(amounts)
    return Amount(*(sum(getattr(each, name) for each in found) for name in ("rows", "tokens", "trained")))


def _quantiles(lengths: npt.NDArray[np.int32]) -> dict[str, int]:
    if not len(lengths):
        return {}
    found = np.quantile(lengths, QUANTILES, method="higher")
    return {f"{quantile:g}": int(length) for quantile, length in zip(QUANTILES, found, strict=True)}


def _lengths(part: Part) -> tuple[str, ...]:
    return (part.name, *(f"{part.lengths[f'{each:g}']:,}" if part.lengths else "" for each in QUANTILES))


def _figures(amount: Amount) -> tuple[str, ...]:
    return tuple(f"{each:,}" for each in (amount.rows, amount.tokens, amount.trained))


def _counts(counts: dict[str, int]) -> str:
    return "; ".join(f"{count:,} {reason}" for reason, count in counts.items())


def _percent(share: float) -> str:
    return f"{100 * share:.2f} %"


def _table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [columns, ["---", *("---:" for _ in columns[1:])], *rows]
    return "\n".join(f"| {' | '.join(cell.replace('|', '/') for cell in line)} |" for line in lines)
