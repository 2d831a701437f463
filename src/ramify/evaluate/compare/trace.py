"""Broken answers traced back to the rows that were trained on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from ramify.base.config_file import parse_config
from ramify.base.errors import RamifyError
from ramify.base.runs import Run
from ramify.evaluate.compare.comparison import Comparison
from ramify.evaluate.compare.contrasts import Contrast, Flip
from ramify.evaluate.compare.nearest import Near, TrainingRows, nearest
from ramify.evaluate.report.examples import drawn

ROWS = 3
"""Training rows shown for an answer."""


def traced(comparison: Comparison, k: int = ROWS) -> Comparison:
    """The comparison with the `k` training rows nearest to each broken answer that a report shows in full.

    Looked for are question and answer together, among the rows that `after` was trained on (the first seed's). Where
    these are not there any more, or cannot be read, a note says so.
    """
    notes = list(comparison.notes)
    kept: dict[Path, Mapping[str, tuple[Near, ...]]] = {}
    for folder, asked in _asked(comparison).items():
        try:
            kept[folder] = _search(folder, asked, k)
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
    return drawn(contrast.broken, f"broken {contrast.before.name} {contrast.after.name}")


def _search(folder: Path, flips: Sequence[Flip], k: int) -> dict[str, tuple[Near, ...]]:
    """Problem -> nearest rows."""
    config = parse_config(Run(folder).record.get("config") or {}, str(folder))
    selected = folder / "rows.jsonl"
    rows = TrainingRows(config, str(selected) if selected.is_file() else None)
    texts = {flip.problem.id: f"{flip.problem.prompt[-1].content}\n{flip.after.text}" for flip in flips}
    return {name: tuple(found) for name, found in zip(texts, nearest(rows, list(texts.values()), k), strict=True)}
