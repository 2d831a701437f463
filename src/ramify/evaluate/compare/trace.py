"""Broken answers traced back to the rows that were trained on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from ramify.base.config_file import parse_config
from ramify.base.errors import RamifyError
from ramify.base.runs import Run
from ramify.evaluate.compare.chosen import chosen
from ramify.evaluate.compare.comparison import Comparison
from ramify.evaluate.compare.contrasts import Contrast, Flip, FlipKind
from ramify.evaluate.compare.nearest import MOST_ROWS, Near, TrainingRows, nearest

ROWS = 3
"""Training rows shown for an answer."""


def traced(comparison: Comparison, k: int = ROWS) -> Comparison:
    """The comparison with the `k` training rows nearest to each broken answer that a report shows in full.

    Looked for are question and answer together, among the rows that `after` was trained on (the first seed's). Where
    these are not there any more, cannot be read, or are more than are looked at, a note says so.
    """
    notes = list(comparison.notes)
    kept: dict[Path, Mapping[str, tuple[Near, ...]]] = {}
    for folder, asked in _asked(comparison).items():
        try:
            rows = _rows(folder)
            kept[folder] = _search(rows, asked, k)
            if rows.cut:
                notes.append(f"Of the rows that {folder} was trained on the first {MOST_ROWS:,} were searched.")
        except RamifyError as error:
            notes.append(f"The rows that {folder} was trained on cannot be read any more: {error.message}.")
    contrasts = tuple(_with_near(each, kept) for each in comparison.contrasts)
    return replace(comparison, contrasts=contrasts, notes=tuple(notes))


def _with_near(contrast: Contrast, kept: Mapping[Path, Mapping[str, tuple[Near, ...]]]) -> Contrast:
    folder = contrast.after.stage.training
    known = {} if folder is None else kept.get(folder, {})
    return replace(
        contrast,
        near={flip.problem.id: known[flip.problem.id] for flip in _shown(contrast) if flip.problem.id in known},
    )


def _asked(comparison: Comparison) -> dict[Path, list[Flip]]:
    """Training run -> the broken answers of it."""
    found: dict[Path, list[Flip]] = {}
    for each in comparison.contrasts:
        folder = each.after.stage.training
        if folder is not None and each.before.trainings != each.after.trainings:
            found.setdefault(folder, []).extend(_shown(each))
    return {folder: flips for folder, flips in found.items() if flips}


def _shown(contrast: Contrast) -> Sequence[Flip]:
    """The broken answers that a report shows in full."""
    return chosen(contrast, FlipKind.BROKEN)


def _rows(folder: Path) -> TrainingRows:
    """What a training run was trained on."""
    config = parse_config(Run(folder).record.get("config") or {}, str(folder))
    selected = folder / "rows.jsonl"
    return TrainingRows(config, str(selected) if selected.is_file() else None)


def _search(rows: TrainingRows, flips: Sequence[Flip], k: int) -> dict[str, tuple[Near, ...]]:
    """Problem -> nearest rows."""
    texts = {flip.problem.id: f"{flip.problem.prompt[-1].content}\n{flip.after.text}" for flip in flips}
    return {name: tuple(found) for name, found in zip(texts, nearest(rows, list(texts.values()), k), strict=True)}
