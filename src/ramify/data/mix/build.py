"""A mix in two passes: every source is read once and set aside, then what is chosen is written in its order.

    made = mix(load_mix("mix.yaml"), MixFolder(Path("data/mix")), renderer)
    made.report.shares()

The same settings and the same rows give the same bytes, whether a mix was interrupted in between or not. Which rows
are chosen, and their order, does not depend on the order of rows in a source either; only their lineage (`row`) does,
and `limit`, which takes the first ones.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ramify.base.config_mix import MixConfig, MixSource
from ramify.base.errors import ConfigError, DataError
from ramify.base.progress import SILENT, Progress
from ramify.data.mix import arrow, near
from ramify.data.mix.choose import Flags, by_key, pick, quotas, without_duplicates
from ramify.data.mix.folder import MixFolder
from ramify.data.mix.identity import decides, decides_all
from ramify.data.mix.intake import Rules, take_in
from ramify.data.mix.overlap import Overlap
from ramify.data.mix.records import Drop, Kind
from ramify.data.mix.report import make_report
from ramify.data.mix.shelf import Reader, Taken, finished, nothing
from ramify.data.mix.write import NOTHING_ELSE, Made, Wishes, write
from ramify.prompts.renderer import Renderer


def mix(
    config: MixConfig, folder: MixFolder, renderer: Renderer, wishes: Wishes = NOTHING_ELSE, watch: Progress = SILENT
) -> Made:
    """Make a mix.

    Args:
        renderer: of the model and the prompting that the settings name; it counts tokens.

    Raises:
        DataError: a source that is not optional cannot be read, has too many bad rows, or gives nothing.
        ConfigError: the sources are not of one kind, one would be repeated without end, or a library is missing.
        RunError: the folder cannot be written.
    """
    arrow.require()
    if config.dedup == "near":
        near.require()
    try:
        rules = Rules(config, renderer, Overlap.of(config.decontaminate, config.overlap))
        with folder.writing():
            taken = _first_pass(rules, folder, watch)
        stays, dropped = _compared(config, taken, watch)
        indices = [each.index for each in taken]
        wanted = quotas(config, indices, stays)
        picks = pick(config, indices, stays, [quota.taken for quota in wanted])
        if not len(picks) or picks.validation.all():
            hint = "see what was left out: bad_rows, decontaminate, max_length"
            raise DataError("no row is left to train", hint=hint)
        report = make_report(rules, taken, dropped, wanted, picks)
        return write(folder, taken, picks, report, wishes, watch)
    except Exception:
        folder.forget()
        raise


def _first_pass(rules: Rules, folder: MixFolder, watch: Progress) -> list[Taken]:
    common = decides_all(rules)
    taken: list[Taken] = []
    for number, source in enumerate(rules.config.sources):
        kind = next((Kind(each.counts.kind) for each in taken if each.counts.kind), None)
        try:
            taken.append(_taken(folder.source(number), source, rules, kind, common, watch))
        except ConfigError as error:
            raise ConfigError(f"source {source.name}: {error.message}", hint=error.hint) from None
        except DataError as error:
            if not source.optional:
                raise DataError(f"source {source.name}: {error.message}", hint=error.hint) from None
            taken.append(nothing(source, error.message))
            watch.note(f"source {source.name} is left out: {error.message}")
    return taken


def _taken(folder: Path, source: MixSource, rules: Rules, kind: Kind | None, common: str, watch: Progress) -> Taken:
    """A source, read now or before.

    Raises:
        DataError: it cannot be read, or gives nothing.
    """
    settings = decides(source, rules.config, common)
    found = finished(folder, source, settings)
    if found is None or (kind is not None and found.counts.kind != kind.value):
        found = take_in(folder, source, rules, kind, settings, watch)
    if not len(found.index):
        left_out = "; ".join(f"{count} {reason}" for reason, count in sorted(found.counts.dropped.items()))
        raise DataError(f"none of its {found.counts.read} rows is left ({left_out})", path=source.path)
    return found


def _compared(config: MixConfig, taken: Sequence[Taken], watch: Progress) -> tuple[list[Flags], list[Counter[str]]]:
    """Which entries stay in comparison with all others, and how many of each source do not, by reason."""
    indices = [each.index for each in taken]
    everything = [np.ones(len(index), np.bool_) for index in indices]
    if config.dedup == "none":
        return everything, [Counter() for _ in taken]
    exact = without_duplicates(indices)
    stays = _unlike(taken, exact, config.similarity, watch) if config.dedup == "near" else exact
    return stays, [
        +Counter({Drop.DUPLICATE.value: int((~once).sum()), Drop.NEAR.value: int((once & ~kept).sum())})
        for once, kept in zip(exact, stays, strict=True)
    ]


def _unlike(taken: Sequence[Taken], stays: Sequence[Flags], similarity: float, watch: Progress) -> list[Flags]:
    """Without near-duplicates: of similar entries that of the first source stays, there the one of the smallest key."""
    order = [by_key(each.index, flags) for each, flags in zip(taken, stays, strict=True)]
    watch.start("comparing", sum(map(len, order)))
    kept = near.first_of_its_like(_texts(taken, order, watch), similarity)
    found = [np.zeros(len(flags), np.bool_) for flags in stays]
    for unlike, entries, some in zip(found, order, np.split(kept, np.cumsum([*map(len, order)])[:-1]), strict=True):
        unlike[entries] = some
    watch.close()
    return found


def _texts(taken: Sequence[Taken], order: Sequence[Any], watch: Progress) -> Iterator[str]:
    """What entries say, system turns left out."""
    done = 0
    for source, entries in zip(taken, order, strict=True):
        with Reader(source) as reader:
            for entry in entries:
                yield _text(reader.read(int(entry)))
                done += 1
                if done % 1000 == 0:
                    watch.update(done)


def _text(entry: dict[str, Any]) -> str:
    if "text" in entry:
        return str(entry["text"])
    turns = [turn for name in ("messages", "prompt", "chosen", "rejected") for turn in entry.get(name, ())]
    return "\n".join(turn["content"] for turn in turns if turn["role"] != "system")
