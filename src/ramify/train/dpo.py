"""Preference optimisation on pairs of a chosen and a rejected completion (see `losses`).

    rows.html             some pairs with their trained tokens coloured, see `look`
    reference.npz         log-probabilities under the reference, see `reference`; none for losses without one
    metrics.jsonl         as for supervised fine-tuning, and the means over pairs of `losses.preference`, in training
                          and in validation
    run.json              also `reference`: seconds, tokens and saved tokens of computing it

Everything else in the run folder is as supervised fine-tuning leaves it.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel

from ramify.base.config import RunConfig
from ramify.base.errors import TrainingError
from ramify.base.progress import Progress
from ramify.base.runs import Run
from ramify.base.types import Pair
from ramify.model.load import LoadedModel
from ramify.model.outline import Outline
from ramify.train.checks import check_preference, renderer_for
from ramify.train.folder import Opening
from ramify.train.look import Look, Pick, write_page
from ramify.train.losses import REFERENCE_FREE
from ramify.train.material import Material, RunData
from ramify.train.pairs import PairSet, read_preferences, render_pairs
from ramify.train.preference import Preference, Reference
from ramify.train.prepare import fingerprint, prepare
from ramify.train.reference import FILE, Key, References, compute_references, read_references, write_references
from ramify.train.schedule import Schedule
from ramify.train.shared import alone, link, place_of
from ramify.train.staged import Goal, Method, Staged, read_and_train
from ramify.train.watch import PreferenceWatch
from ramify.train.zero import check_rounding, check_zero_margin


def run(
    config: RunConfig,
    *,
    resume: bool = False,
    overwrite: bool = False,
    progress: Progress | None = None,
    loaded: LoadedModel | None = None,
) -> Run:
    """Train on the preference pairs that `config.data` names.

    Arguments, result and errors as for `sft.run`.

    Raises:
        RamifyError: also when the first loss is not that of a policy which equals its reference.
    """
    check_preference(config.dpo)
    return read_and_train(METHOD, config, Opening(resume, overwrite), progress, loaded)


def _render(config: RunConfig, outline: Outline, material: Material[Pair]) -> RunData[PairSet]:
    train, valid = list(material.train), list(material.valid)
    return render_pairs(config, renderer_for(outline, config.prompt), outline.max_length, train, valid)


def _goal(staged: Staged[PairSet], run: Run, progress: Progress) -> Goal:
    settings, train, valid = staged.config.dpo, staged.data.train, staged.data.valid
    if staged.ranks.is_main:
        _write_page(staged, run)
    references = _references(staged, run, progress)
    objective = Preference(train, references.train, settings)
    measured = None
    if valid is not None:
        measured = Preference(valid, references.valid or Reference.none(len(valid)), settings)
    if _starts_as_reference(staged):
        _check_start(staged, objective, run)
    done = 0 if staged.checkpoint is None else staged.checkpoint.state.step
    before = [row for row in run.metrics("train") if row["step"] <= done] if staged.ranks.is_main else []
    return Goal(objective, measured, PreferenceWatch(before))


def _write_page(staged: Staged[PairSet], run: Run) -> None:
    train, look = staged.data.train, Look()
    for pair in range(len(train)):
        longest = len(train.prompts[train.prompt_of[pair]]) + max(len(train.chosen[pair]), len(train.rejected[pair]))
        look.offer(Pick(pair, f"pair {pair + 1}"), longest, turns=1)
    write_page(
        run.folder,
        f"Pairs of {run.folder.name}",
        staged.prepared.renderer.tokenizer,
        look,
        lambda pair: [("chosen", [train.chosen_sequence(pair)]), ("rejected", [train.rejected_sequence(pair)])],
    )


METHOD = Method(read_preferences, _render, _goal)
"""Preference optimisation on pairs."""


def _references(staged: Staged[PairSet], run: Run, progress: Progress) -> References:
    """Those that the run folder keeps, or else computed; zeros for a loss that uses none."""
    if staged.config.dpo.loss in REFERENCE_FREE:
        return References(Reference.none(len(staged.data.train)), None)
    key = staged.ranks.from_main(lambda: _key(staged, run))
    place = _shared_place(staged, key)
    with alone(place):
        found = staged.ranks.from_main(lambda: _kept(run, key, place))
        if found is not None:
            return found
        with _reference_network(staged, run) as network:
            train, valid, tokens = staged.data.train, staged.data.valid, staged.config.train.micro_tokens
            found = compute_references(network, train, valid, tokens, progress, staged.ranks)
        if staged.ranks.is_main:
            write_references(run.folder, key, found)
            run.update(reference={**run.record["reference"], **found.facts})
        if place is not None:
            link(run.folder / FILE, place)
        return found


def _shared_place(staged: Staged[PairSet], key: Key) -> Path | None:
    """Where runs that share a folder keep this reference; the main process alone reads and writes it."""
    config = staged.config
    named = {"model": config.model, "adapter": config.adapter, "revision": config.revision}
    return place_of("reference", {**key, **named}) if staged.ranks.is_main else None


def _kept(run: Run, key: Key, place: Path | None) -> References | None:
    """What the run folder keeps under the key, or another run has left."""
    found = read_references(run.folder, key)
    if found is None and place is not None and link(place, run.folder / FILE):
        found = read_references(run.folder, key)
    return found


def _key(staged: Staged[PairSet], run: Run) -> dict[str, Any]:
    """What the reference's log-probabilities depend on; what they start from is recorded when the run begins."""
    loaded = staged.prepared.loaded
    if staged.checkpoint is None:
        weights = "without adapter" if _base_will_do(staged) else "start"
        run.update(
            hashes={**run.record["hashes"], "start": fingerprint(loaded.network, trained=True)},
            reference={**run.record.get("reference", {}), "weights": weights},
        )
    is_base = run.record["reference"]["weights"] == "without adapter"
    return {
        "weights": run.record["hashes"]["model" if is_base else "start"],  # an adapter that is not used decides nothing
        "without_adapter": is_base,
        **staged.data.hashes,
        "micro_tokens": staged.config.train.micro_tokens,
        "dtype": str(loaded.dtype).removeprefix("torch."),
        "device": str(loaded.device),
    }


def _base_will_do(staged: Staged[PairSet]) -> bool:
    """Whether the reference is the network without its adapter, which is there at any time."""
    prepared = staged.prepared
    asked = staged.config.dpo.reference == "base" and isinstance(prepared.loaded.network, PeftModel)
    return prepared.fresh or asked


@contextmanager
def _reference_network(staged: Staged[PairSet], run: Run) -> Iterator[Any]:
    """The reference's network inside the block.

    A resumed run whose reference is no longer there, and which began from weights that it trains, loads those weights
    again, beside its own.

    Raises:
        TrainingError: they are not what they were when the run began.
    """
    loaded = staged.prepared.loaded
    if run.record["reference"]["weights"] == "without adapter":
        with loaded.without_adapter():
            yield loaded.network
    elif staged.checkpoint is None:
        yield loaded.network
    else:
        network = prepare(staged.config).loaded.network
        if fingerprint(network, trained=True) != run.record["hashes"]["start"]:
            raise TrainingError(
                f"{run.folder}: the reference has to be computed again, and the weights the run began with have "
                "changed",
                hint="put reference.npz or those weights back, or --overwrite to start again",
            )
        yield network


def _starts_as_reference(staged: Staged[PairSet]) -> bool:
    """Whether policy and reference are the same network before the first step."""
    settings, prepared = staged.config.dpo, staged.prepared
    differs = settings.reference == "base" and isinstance(prepared.loaded.network, PeftModel) and not prepared.fresh
    return staged.checkpoint is None and settings.loss not in REFERENCE_FREE and not differs


def _check_start(staged: Staged[PairSet], objective: Preference, run: Run) -> None:
    """Refuse to train when the first batch, dropout off, has not the loss of two equal networks (see `zero`)."""
    config, network = staged.config, staged.prepared.loaded.network
    first = Schedule.of(objective.groups, config.train, config.seed).indices(0)
    if staged.prepared.loaded.dtype != torch.float32:
        network.eval()
        with _reference_network(staged, run) as reference:
            again = objective.reference_of(reference, first, config.train.micro_tokens)
        check_rounding(objective, again, first)
        objective = replace(objective, reference=again)
    check_zero_margin(network, objective, first, config.train.micro_tokens)
