"""Supervised fine-tuning: rows are rendered, checked and trained on; the run folder holds everything that came of it.

adapter/ or model/    the result, in PEFT's or Transformers' layout
checkpoint-N/         see `checkpoint`
rows.html             some rows with their trained tokens coloured, see `look`
metrics.jsonl         kind train: step, epoch, loss, lr, grad_norm, tokens (unshared), computed_tokens, seconds,
                      tokens_per_second; kind eval: step, epoch, loss
run.json              status (finished, stopped, failed), seconds (all, of the data, of training), tokens, saved tokens,
                      best, leaks
"""

from __future__ import annotations

from ramify.base.config import RunConfig
from ramify.base.progress import Progress
from ramify.base.runs import Run
from ramify.model.load import LoadedModel
from ramify.model.outline import Outline
from ramify.prompts.renderer import Renderer
from ramify.train.checks import renderer_for
from ramify.train.folder import Opening
from ramify.train.look import write_page
from ramify.train.material import Material, RunData
from ramify.train.objective import Supervised
from ramify.train.render import TrainingSet, render_all
from ramify.train.rows import Turns, read_turns
from ramify.train.shared_rows import shared_rows
from ramify.train.staged import Goal, Method, Staged, read_and_train


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
    return read_and_train(METHOD, config, Opening(resume, overwrite), progress, loaded)


def _render(config: RunConfig, outline: Outline, material: Material[Turns]) -> RunData[TrainingSet]:
    renderer, limit = renderer_for(outline, config.prompt), outline.max_length
    return shared_rows(config, renderer, limit, material, lambda: render_all(config, renderer, limit, material))


def _goal(staged: Staged[TrainingSet], run: Run, progress: Progress) -> Goal:
    train, valid = staged.data.train, staged.data.valid
    measured = None if valid is None else Supervised(valid.sequences, valid.groups)
    if staged.ranks.is_main:
        _write_page(run, staged.prepared.renderer, train)
    return Goal(Supervised(train.sequences, train.groups), measured)


def _write_page(run: Run, renderer: Renderer, train: TrainingSet) -> None:
    write_page(
        run.folder,
        f"Rows of {run.folder.name}",
        renderer.tokenizer,
        train.look,
        lambda row: [("", [train.sequences[index] for index in train.groups[row]])],
    )


METHOD = Method(read_turns, _render, _goal)
"""Supervised fine-tuning on rows."""
