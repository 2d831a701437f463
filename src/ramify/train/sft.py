"""Supervised fine-tuning: rows are rendered, checked and trained on; the run folder holds everything that came of it.

adapter/ or model/    the result, in PEFT's or Transformers' layout
checkpoint-N/         see `checkpoint`
metrics.jsonl         kind train: step, epoch, loss, lr, grad_norm, tokens (unshared), computed_tokens, seconds,
                      tokens_per_second; kind eval: step, epoch, loss
run.json              status (finished, stopped, failed), seconds, tokens, saved tokens, best, leaks
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from peft import PeftModel

from ramify.base.config import RunConfig
from ramify.base.errors import RunError
from ramify.base.runs import Run
from ramify.base.types import Example
from ramify.model.load import LoadedModel
from ramify.model.lora import save_trained
from ramify.train.checkpoint import (
    Checkpoint,
    TrainState,
    checkpoint_folder,
    copy_weights,
    newest_checkpoint,
)
from ramify.train.folder import Opening, check_free, finished_run, recorded, run_folder, start_run
from ramify.train.loop import Job, Loop
from ramify.train.objective import Supervised
from ramify.train.prepare import Prepared, fingerprint, prepare
from ramify.train.progress import LogProgress, Progress
from ramify.train.rows import RunData, read_examples, render_all


@dataclass(frozen=True)
class Staged:
    """Everything that a training needs and that can be refused, before a run folder is touched."""

    config: RunConfig
    prepared: Prepared
    data: RunData
    checkpoint: Checkpoint | None

    @property
    def hashes(self) -> dict[str, str]:
        """What must be the same when the run is gone on with."""
        return {**self.data.hashes, "model": fingerprint(self.prepared.loaded.network)}


def run(
    config: RunConfig,
    *,
    resume: bool = False,
    overwrite: bool = False,
    progress: Progress | None = None,
    loaded: LoadedModel | None = None,
) -> Run:
    """Train on the rows that `config.data` names.

    Args:
        resume: go on from the newest checkpoint; the settings and data must be those the run began with.
        overwrite: replace the run that is in the folder.
        progress: is told how far it is; None: notes go to the logger `ramify`.
        loaded: a model that is loaded already, trained in place; None: `config.model` is loaded.

    Returns:
        The finished run.

    Raises:
        RamifyError: bad settings, data or model before the first step; a loss that is not finite, or a full disk,
            after it.
        KeyboardInterrupt: the user stopped it; a checkpoint is written and the message says how to go on.
    """
    opening = Opening(resume, overwrite)
    check_free(run_folder(config), opening)
    examples = read_examples(config, "train")
    valid = [] if config.data.valid is None else read_examples(config, "valid")
    return train_examples(config, examples, valid, opening, progress or LogProgress(), loaded)


def train_examples(
    config: RunConfig,
    examples: Sequence[Example],
    valid: Sequence[Example],
    opening: Opening,
    progress: Progress,
    loaded: LoadedModel | None = None,
) -> Run:
    """Train on examples that are in memory, in a run folder of their own. Result and errors as for `run`."""
    done = finished_run(config, opening)
    if done is not None:
        progress.note(f"{done.folder} is finished already")
        return done
    staged = stage(config, examples, valid, resume=opening.resume, loaded=loaded)
    folder = start_run(config, staged.hashes, opening)
    with recorded(folder):
        train_staged(staged, folder, progress)
    return folder


def stage(
    config: RunConfig,
    examples: Sequence[Example],
    valid: Sequence[Example],
    *,
    resume: bool,
    loaded: LoadedModel | None = None,
) -> Staged:
    """Load the model, render and check all rows, and find the checkpoint to go on from.

    Raises:
        RamifyError: whatever can be refused before the first step.
    """
    checkpoint = newest_checkpoint(run_folder(config)) if resume else None
    prepared = prepare(config, None if checkpoint is None else checkpoint.folder, loaded)
    data = render_all(config, prepared.renderer, prepared.loaded.max_length, examples, valid)
    return Staged(config, prepared, data, checkpoint)


def train_staged(staged: Staged, run: Run, progress: Progress) -> None:
    """Train, and leave the result and an account of it in the run folder."""
    loaded = staged.prepared.loaded
    run.update(data=staged.data.facts, policy=loaded.policy, dtype=str(loaded.dtype).removeprefix("torch."))
    for note in (*staged.prepared.notes, *staged.data.notes(staged.config)):
        progress.note(note)
    loop = Loop(_job(staged, run), staged.checkpoint, progress)
    load_best = staged.config.train.load_best
    try:
        state = loop.run()
        used = state.best_step if load_best and state.best_step is not None else state.step
        kind = "adapter" if isinstance(loaded.network, PeftModel) else "model"
        copy_weights(checkpoint_folder(run.folder, used), run.folder / kind)
    finally:
        with suppress(RunError):  # on a full disk the error that is on its way says more
            run.update(**outcome(loop.state, load_best))


def outcome(state: TrainState, load_best: bool) -> dict[str, Any]:
    """What run.json says about the training that was done so far."""
    best = None if state.best_step is None else {"step": state.best_step, "loss": state.best_loss}
    return {
        "steps": state.step,
        "stopped_early": state.stopped_early,
        "training_seconds": round(state.seconds, 3),
        "tokens": state.tokens,
        "computed_tokens": state.computed_tokens,
        "saved_tokens": state.tokens - state.computed_tokens,
        "trained_tokens": state.trained_tokens,
        "best": best,
        "used_step": state.best_step if load_best and best else state.step,
    }


def _job(staged: Staged, run: Run) -> Job:
    train, valid, loaded = staged.data.train, staged.data.valid, staged.prepared.loaded
    return Job(
        network=loaded.network,
        objective=Supervised(train.sequences, train.groups),
        valid=None if valid is None else Supervised(valid.sequences, valid.groups),
        settings=staged.config.train,
        seed=staged.config.seed,
        run=run,
        save_weights=lambda folder: save_trained(loaded, folder),
    )
