"""From settings and rows to a finished run folder: what all methods that train share.

A method says how its rows become token ids and what the loop is to minimise on them; everything else is here.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from peft import PeftModel

from ramify.base.config import RunConfig
from ramify.base.errors import RunError
from ramify.base.runs import Run
from ramify.model.load import LoadedModel
from ramify.model.lora import save_trained
from ramify.train.checkpoint import Checkpoint, TrainState, checkpoint_folder, copy_weights, newest_checkpoint
from ramify.train.folder import Opening, check_free, finished_run, recorded, run_folder, start_run
from ramify.train.loop import Job, Loop, Watch, unwatched
from ramify.train.material import Material, Rendered, RunData
from ramify.train.objective import Objective
from ramify.train.prepare import Prepared, fingerprint, prepare
from ramify.train.progress import LogProgress, Progress
from ramify.train.rows import Split

Row = TypeVar("Row")
Set = TypeVar("Set", bound=Rendered)


@dataclass(frozen=True)
class Staged(Generic[Set]):
    """Everything that a training needs and that can be refused, before a run folder is touched.

    Attributes:
        data_seconds: time to read and render the rows.
    """

    config: RunConfig
    prepared: Prepared
    data: RunData[Set]
    checkpoint: Checkpoint | None
    data_seconds: float = 0.0

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

    read: Callable[[RunConfig, Split], list[Row]]
    render: Callable[[RunConfig, Prepared, Material[Row]], RunData[Set]]
    goal: Callable[[Staged[Set], Run, Progress], Goal]


def read_and_train(
    method: Method[Row, Set],
    config: RunConfig,
    opening: Opening,
    progress: Progress | None,
    loaded: LoadedModel | None,
) -> Run:
    """Train on the rows that `config.data` names; result and errors as for `carry_out`."""
    check_free(run_folder(config), opening)
    began = time.perf_counter()
    train = method.read(config, "train")
    valid = [] if config.data.valid is None else method.read(config, "valid")
    material = Material(train, valid, time.perf_counter() - began)
    return carry_out(method, config, material, opening, progress or LogProgress(), loaded)


def carry_out(
    method: Method[Row, Set],
    config: RunConfig,
    material: Material[Row],
    opening: Opening,
    progress: Progress,
    loaded: LoadedModel | None = None,
) -> Run:
    """Train on rows that are in memory, in a run folder of their own.

    Raises:
        RamifyError: bad settings, data or model before the first step; a loss that is not finite, or a full disk,
            after it.
        KeyboardInterrupt: the user stopped it; a checkpoint is written and the message says how to go on.
    """
    done = finished_run(config, opening)
    if done is not None:
        progress.note(f"{done.folder} is finished already")
        return done
    staged = stage(method, config, material, resume=opening.resume, loaded=loaded)
    folder = start_run(config, staged.hashes, opening)
    with recorded(folder):
        train_staged(method, staged, folder, progress)
    return folder


def stage(
    method: Method[Row, Set],
    config: RunConfig,
    material: Material[Row],
    *,
    resume: bool,
    loaded: LoadedModel | None = None,
) -> Staged[Set]:
    """Load the model, render and check all rows, and find the checkpoint to go on from.

    Raises:
        RamifyError: whatever can be refused before the first step.
    """
    checkpoint = newest_checkpoint(run_folder(config)) if resume else None
    prepared = prepare(config, None if checkpoint is None else checkpoint.folder, loaded)
    began = time.perf_counter()
    data = method.render(config, prepared, material)
    return Staged(config, prepared, data, checkpoint, material.seconds + time.perf_counter() - began)


def train_staged(method: Method[Row, Set], staged: Staged[Set], run: Run, progress: Progress) -> None:
    """Train, and leave the result and an account of it in the run folder."""
    loaded = staged.prepared.loaded
    run.update(
        data=staged.data.facts,
        data_seconds=round(float(run.record.get("data_seconds", 0.0)) + staged.data_seconds, 3),
        policy=loaded.policy,
        dtype=str(loaded.dtype).removeprefix("torch."),
    )
    for note in (*staged.prepared.notes, *staged.data.notes(staged.config)):
        progress.note(note)
    goal = method.goal(staged, run, progress)
    loop = Loop(_job(staged, run, goal), staged.checkpoint, progress)
    load_best = staged.config.train.load_best
    try:
        state = loop.run()
        used = state.best_step if load_best and state.best_step is not None else state.step
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
    )
