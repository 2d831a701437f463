"""From settings and rows to a finished run folder: what all methods that train share.

A method says how its rows become token ids and what the loop is to minimise on them; everything else is here.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

from peft import PeftModel

from ramify.base.config import RunConfig
from ramify.base.errors import ConfigError, RunError, TrainingError
from ramify.base.progress import LogProgress, NoProgress, Progress
from ramify.base.runs import Run
from ramify.model.load import LoadedModel, choose_device
from ramify.model.lora import save_trained
from ramify.model.outline import Outline
from ramify.model.quantize import nf4_settings
from ramify.train.checkpoint import Checkpoint, TrainState, checkpoint_folder, copy_weights, newest_checkpoint
from ramify.train.checks import check_engine, check_outline
from ramify.train.folder import (
    FollowedRun,
    Opening,
    check_free,
    finished_run,
    record_loss,
    recorded,
    run_folder,
    start_run,
)
from ramify.train.loop import Job, Loop, Watch, unwatched
from ramify.train.material import Material, Rendered, RunData
from ramify.train.objective import Objective
from ramify.train.prepare import Prepared, check_start, fingerprint, outline_of, prepare
from ramify.train.ranks import ALONE, Ranks, joined
from ramify.train.rows import Split, has_validation
from ramify.train.sharding import shard

Row = TypeVar("Row")
Set = TypeVar("Set", bound=Rendered)


@dataclass(frozen=True)
class Staged(Generic[Set]):
    """Everything that a training needs and that can be refused, before a run folder is touched.

    Attributes:
        data_seconds: time to read and render the rows.
        ranks: the processes that train together.
    """

    config: RunConfig
    prepared: Prepared
    data: RunData[Set]
    checkpoint: Checkpoint | None
    data_seconds: float = 0.0
    ranks: Ranks = ALONE

    @property
    def hashes(self) -> dict[str, str]:
        """What must be the same when the run is gone on with."""
        return {**self.data.hashes, "model": fingerprint(self.prepared.loaded.network)}


@dataclass(frozen=True)
class Goal:
    """What the loop minimises, what it is measured on, and what looks at its metrics."""

    train: Objective
    valid: Objective | None
    watch: Watch = unwatched


@dataclass(frozen=True)
class Method(Generic[Row, Set]):
    """What tells one method from another.

    Attributes:
        read: the training or validation rows that `config.data` names.
        render: rows as token ids, checked; raises whatever can be refused before the first step.
        goal: the objectives, once the run folder is there: what they need first is computed here.
    """

    read: Callable[[RunConfig, Split], Iterable[Row]]
    render: Callable[[RunConfig, Outline, Material[Row]], RunData[Set]]
    goal: Callable[[Staged[Set], Run, Progress], Goal]


@dataclass(frozen=True)
class Circumstances:
    """What a run finds: who watches it, a model that is loaded already, and the processes that take part."""

    progress: Progress
    loaded: LoadedModel | None = None
    ranks: Ranks = ALONE


def read_and_train(
    method: Method[Row, Set],
    config: RunConfig,
    opening: Opening,
    progress: Progress | None,
    loaded: LoadedModel | None,
) -> Run:
    """Train on the rows that `config.data` names; result and errors as for `carry_out`.

    Under a launcher (see `ranks`) with all the processes that it started.
    """
    with joined(config.train.device) as ranks:
        watcher = (progress or LogProgress()) if ranks.is_main else NoProgress()
        ranks.from_main(lambda: check_free(run_folder(config), opening))
        began = time.perf_counter()
        train = method.read(config, "train")
        valid = method.read(config, "valid") if has_validation(config.data) else []
        material = Material(train, valid, time.perf_counter() - began, watcher)
        return carry_out(method, config, material, opening, Circumstances(watcher, loaded, ranks))


def carry_out(
    method: Method[Row, Set],
    config: RunConfig,
    material: Material[Row],
    opening: Opening,
    found: Circumstances,
) -> Run:
    """Train on rows, in a run folder of their own.

    Raises:
        RamifyError: bad settings, data or model before the first step; a loss that is not finite, or a full disk,
            after it; another process that has failed or is gone.
        KeyboardInterrupt: the user stopped it; a checkpoint is written and the message says how to go on.
    """
    ranks = found.ranks
    done = ranks.from_main(lambda: finished_run(config, opening))
    if done is not None:
        found.progress.note(f"{done.folder} is finished already")
        return done
    check_engine(config)
    staged = stage(method, config, material, resume=opening.resume, found=found)
    hashes = staged.hashes
    check_alike(ranks, hashes)
    run = ranks.from_main(lambda: start_run(config, hashes, opening))
    ranks.at_loss(lambda reason: record_loss(run, reason))
    with recorded(run) if ranks.is_main else nullcontext(), ranks.explained():
        train_staged(method, staged, run if ranks.is_main else FollowedRun(run.folder), found.progress)
    return ranks.from_main(lambda: run)


def stage(
    method: Method[Row, Set],
    config: RunConfig,
    material: Material[Row],
    *,
    resume: bool,
    found: Circumstances,
) -> Staged[Set]:
    """Render and check all rows, load the model, and find the checkpoint to go on from.

    Rows come first: what is wrong with them, and what is to be noted of them, is told before weights are fetched and
    read.

    Raises:
        RamifyError: whatever can be refused before the first step.
    """
    _check_shard(config, found.ranks)
    checkpoint = newest_checkpoint(run_folder(config)) if resume else None
    begun = None if checkpoint is None else checkpoint.folder
    outline = _outline(config, begun, found.loaded)
    began = time.perf_counter()
    data = method.render(config, outline, material)
    seconds = material.seconds + time.perf_counter() - began
    for note in data.notes(config):
        found.progress.note(note)
    prepared = prepare(config, begun, found.loaded)
    return Staged(config, prepared, data, checkpoint, seconds, found.ranks)


def _outline(config: RunConfig, checkpoint: Path | None, loaded: LoadedModel | None) -> Outline:
    """The model without its weights, after everything that can be refused with no more than that."""
    device = choose_device(config.train.device)
    if config.train.quantize is not None:
        nf4_settings(device)
    if checkpoint is not None:
        return outline_of(config, checkpoint)
    if loaded is not None:
        check_start(config, loaded)
        return loaded.outline
    outline = outline_of(config)
    check_outline(config, outline)
    return outline


def _check_shard(config: RunConfig, ranks: Ranks) -> None:
    shard_by, quantize = config.train.shard, config.train.quantize
    if shard_by == "none":
        return
    if ranks.size == 1:
        raise ConfigError(
            f"train.shard = {shard_by} divides a model among several processes, and this is one alone",
            hint="start it with torchrun or accelerate launch, or set train.shard=none",
        )
    if quantize is not None:
        raise ConfigError(f"train.shard = {shard_by} cannot divide weights of train.quantize = {quantize}")


def check_alike(ranks: Ranks, hashes: Mapping[str, str]) -> None:
    """Refuse processes that do not see the same data and weights; raised by all.

    Raises:
        TrainingError: names the first that differs from the main one, and in what.
    """
    first, *others = ranks.gather(dict(hashes))
    for rank, own in enumerate(others, start=1):
        apart = sorted(name for name in first.keys() | own.keys() if first.get(name) != own.get(name))
        if apart:
            raise TrainingError(
                f"process {rank} of {ranks.size} has not what process 0 has: {', '.join(apart)}",
                hint="every machine needs the same files and the same versions",
            )


def train_staged(method: Method[Row, Set], staged: Staged[Set], run: Run, progress: Progress) -> None:
    """Train, and leave the result and an account of it in the run folder."""
    loaded = staged.prepared.loaded
    run.update(
        data=staged.data.facts,
        data_seconds=round(float(run.record.get("data_seconds", 0.0)) + staged.data_seconds, 3),
        policy=loaded.policy,
        dtype=str(loaded.dtype).removeprefix("torch."),
        processes=staged.ranks.size,
    )
    for note in staged.prepared.notes:
        progress.note(note)
    goal = method.goal(staged, run, progress)
    if staged.config.train.shard == "fsdp":
        shard(loaded.network)
    loop = Loop(_job(staged, run, goal), staged.checkpoint, progress)
    load_best = staged.config.train.load_best
    try:
        state = loop.run()
        used = state.best_step if load_best and state.best_step is not None else state.step
        if staged.ranks.is_main:
            kind = "adapter" if isinstance(loaded.network, PeftModel) else "model"
            copy_weights(checkpoint_folder(run.folder, used), run.folder / kind)
    finally:
        with suppress(RunError):  # on a full disk the error that is on its way says more
            run.update(**outcome(loop.state, load_best, staged.data.train.trains))


def outcome(state: TrainState, load_best: bool, trains: str) -> dict[str, Any]:
    """What run.json says about the training that was done so far; `trains` names what its loss is divided by."""
    best = None if state.best_step is None else {"step": state.best_step, "loss": state.best_loss}
    return {
        "steps": state.step,
        "stopped_early": state.stopped_early,
        "training_seconds": round(state.seconds, 3),
        "tokens": state.tokens,
        "computed_tokens": state.computed_tokens,
        "saved_tokens": state.tokens - state.computed_tokens,
        f"trained_{trains}": state.trained,
        "best": best,
        "used_step": state.best_step if load_best and best else state.step,
    }


def _job(staged: Staged[Set], run: Run, goal: Goal) -> Job:
    loaded = staged.prepared.loaded
    return Job(
        network=loaded.network,
        objective=goal.train,
        valid=goal.valid,
        settings=staged.config.train,
        seed=staged.config.seed,
        run=run,
        save_weights=lambda folder: save_trained(loaded, folder),
        watch=goal.watch,
        ranks=staged.ranks,
    )
