"""The one training loop. Methods enter as an `Objective`, everything else as arguments.

A step: pick its sequences, count its divisor, sum the gradients of its micro-batches in fp32, check that loss and
gradient are finite, and only then let the optimizer move. Every micro-batch seeds its own random numbers from (seed,
step, number), so a resumed run equals the straight one bit for bit.

Several processes pick the same sequences and count the same divisor; each computes some of the micro-batches, the
gradients are summed, and all move alike. The main process alone writes.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch

from ramify.base.config import Train
from ramify.base.errors import TrainingError
from ramify.base.progress import Progress
from ramify.base.rng import key
from ramify.base.runs import Run
from ramify.train.checkpoint import (
    Checkpoint,
    TrainState,
    find_checkpoints,
    remove_half_written,
    remove_old,
    write_checkpoint,
)
from ramify.train.division import Company, Turn, cut
from ramify.train.interrupt import DeferredInterrupt
from ramify.train.metrics import MetricLog, Metrics, NoMetrics
from ramify.train.objective import Objective, Share
from ramify.train.optimizer import LossScale, MasterAdamW
from ramify.train.ranks import ALONE, Ranks
from ramify.train.schedule import Schedule
from ramify.train.sharding import assembled, is_sharded
from ramify.train.steps import StepResult, Window, measure_all, step_of
from ramify.train.tally import detached, tally

Watch = Callable[[Mapping[str, float]], Iterable[str]]
"""Looks at each line of training metrics; returns what the user should know of it."""


def unwatched(row: Mapping[str, float]) -> Iterable[str]:
    """A watch that finds nothing."""
    return ()


@dataclass(frozen=True)
class Job:
    """All that the loop needs.

    Attributes:
        network: the model, with `requires_grad` set on what is trained.
        objective: training data and loss.
        valid: validation data, or None.
        settings: the optimisation.
        seed: of order and dropout.
        run: where metrics and checkpoints go.
        save_weights: writes the trained weights into a folder.
        watch: looks at every line of training metrics.
        ranks: the processes that train together.
    """

    network: Any
    objective: Objective
    valid: Objective | None
    settings: Train
    seed: int
    run: Run
    save_weights: Callable[[Path], None]
    watch: Watch = unwatched
    ranks: Ranks = ALONE


class Loop:
    """Trains from a checkpoint, or from the start, to the end of the schedule.

    Args:
        job: model, data, settings and run folder.
        checkpoint: where to go on from; its weights are in the network already.
        progress: is told after every step.
    """

    def __init__(self, job: Job, checkpoint: Checkpoint | None, progress: Progress) -> None:
        self.job = job
        self.progress = progress
        self.schedule = Schedule.of(job.objective.groups, job.settings, job.seed)
        parameters = {name: each for name, each in job.network.named_parameters() if each.requires_grad}
        self.optimizer = MasterAdamW(parameters, job.settings.weight_decay, job.ranks)
        self.interrupt = DeferredInterrupt(patient=job.ranks.size > 1)
        self.company = Company(job.ranks, is_sharded(job.network), self.interrupt)
        self.scale = LossScale(any(each.dtype == torch.float16 for each in job.network.parameters()))
        self.state = TrainState(scale=self.scale.value)
        if checkpoint is not None:
            self._take_up(checkpoint)
        sums: dict[str, Any] = self.state.window
        self._window = Window(**sums)
        self._valid_loss: float | None = None
        self._moving = False
        self._asked: type[KeyboardInterrupt] | None = None

    def run(self) -> TrainState:
        """Train to the end.

        Raises:
            TrainingError: loss or gradient is not finite (nothing has moved), or a checkpoint cannot be written.
            KeyboardInterrupt: the user stopped the run; a checkpoint of the last complete step was written.
                `Terminated`, with SIGTERM.
        """
        log = self._open_log()
        self.progress.start("training", self.schedule.total, self.state.step)
        try:
            with self.interrupt, _own_randomness(self.job.network):
                self._after_step(log)  # of step 0, or of the step at which the run was stopped
                while self.state.step < self.schedule.total and not self.state.stopped_early:
                    if self._asked is not None:
                        raise self._asked("asked to stop")
                    self._one_step(log)
        except KeyboardInterrupt as interrupt:
            agreed = bool(interrupt.args)
            said = self._stop(agreed or not self.company.in_step)
            if agreed:
                self.job.ranks.gather(None)  # a launcher ends all once one has ended: the checkpoint comes first
            raise type(interrupt)(said) from None
        finally:
            log.close()
            self.progress.close()
            self.job.network.eval()
        return self.state

    def _open_log(self) -> Metrics:
        job = self.job
        if not job.ranks.is_main:
            return NoMetrics()
        remove_half_written(job.run.folder)
        return MetricLog(job.run, self.state.step, job.settings.tensorboard, self.progress)

    def _one_step(self, log: Metrics) -> None:
        began = time.perf_counter()
        result = self._gradients()
        lr = self.schedule.rate(self.state.step)
        clip = self.job.settings.clip
        if clip is not None and result.grad_norm > clip:
            self.optimizer.multiply(clip / result.grad_norm)
        self._moving = True
        self.optimizer.step(lr)
        self._count(result, lr, time.perf_counter() - began)
        self._moving = False
        self._report(log, result, lr)
        self._after_step(log)

    def _gradients(self) -> StepResult:
        """Unscaled, finite gradients of one step in the masters; tried again at a lower scale on fp16 overflow."""
        while True:
            result = self._accumulate()
            if math.isfinite(result.loss) and math.isfinite(result.grad_norm):
                self.scale.succeeded()
                return result
            if not self.scale.overflowed():
                raise self._not_finite(result)

    def _accumulate(self) -> StepResult:
        job, optimizer = self.job, self.optimizer
        indices = self.schedule.indices(self.state.step)
        divisor = job.objective.divisor(indices)
        parts = cut(job.objective, indices, job.settings.micro_tokens, job.ranks.size)
        turns = self.company.turns(job.objective, parts)
        job.network.train()
        optimizer.zero()
        shares = self._own_shares(turns, divisor / self.scale.value)
        own = replace(tally(shares, self.scale.value), touched=optimizer.touched)
        found = self.company.agree(own, turns)
        self._asked = found.asked
        optimizer.sum_over_ranks(found.touched)
        optimizer.multiply(1 / self.scale.value)
        return step_of(found, float(optimizer.norm()), divisor)

    def _own_shares(self, turns: Sequence[Turn], divisor: float) -> dict[int, Share]:
        """Sum the gradients of this process's micro-batches; what each measured, by its number."""
        job, shares = self.job, {}
        for turn in self.company.until_asked(turns):
            torch.manual_seed(key(job.seed, "step", self.state.step, turn.number))
            share = job.objective.share(job.network, turn.indices, divisor)
            torch.autograd.backward(share.loss if turn.counts else 0.0 * share.loss)
            self.optimizer.gather()
            if turn.counts:
                shares[turn.number] = detached(share)
        return shares

    def _count(self, result: StepResult, lr: float, seconds: float) -> None:
        state = self.state
        state.step += 1
        state.tokens += result.tokens
        state.computed_tokens += result.computed
        state.trained += result.divisor
        state.seconds += seconds
        state.scale, state.good_steps = self.scale.value, self.scale.good_steps
        self._window.add(result, seconds)
        state.window = asdict(self._window)
        state.last = {"lr": lr, "grad_norm": result.grad_norm}

    def _report(self, log: Metrics, result: StepResult, lr: float) -> None:
        step, speed = self.state.step, self._window.tokens_per_second
        if step % self.job.settings.log_every == 0 or step == self.schedule.total:
            self._log_window(log)
        valid = {} if self._valid_loss is None else {"valid_loss": self._valid_loss}
        self.progress.update(step, loss=result.loss, **valid, lr=lr, tokens_per_second=speed)

    def _log_window(self, log: Metrics) -> None:
        """A line of metrics about the steps since the last one, if there were any."""
        state, window = self.state, self._window
        if not window.divisor:
            return
        row = {
            "epoch": round(self.schedule.epoch(state.step), 6),
            "loss": window.loss,
            "tokens": state.tokens,
            "computed_tokens": state.computed_tokens,
            "seconds": round(state.seconds, 3),
            "tokens_per_second": round(window.tokens_per_second, 1),
            **state.last,
            **window.metrics,
        }
        log.log("train", state.step, **row)
        self._window, state.window = Window(), {}
        for note in self.job.watch(row):
            self.progress.note(f"step {state.step}: {note}")

    def _after_step(self, log: Metrics) -> None:
        """Evaluate, save and clear away what is due after the steps done so far, if that was not done already."""
        settings, state = self.job.settings, self.state
        improved = False
        if self.job.valid is not None and state.evaluated_step != state.step and self._due(settings.eval_every):
            improved = self._evaluate(self.job.valid, log)
        if state.stopped_early:
            self._log_window(log)
        if state.step == 0 or state.saved_step == state.step:
            return
        if self._due(settings.save_every) or (improved and settings.load_best) or state.stopped_early:
            self._checkpoint()

    def _due(self, every: int | None) -> bool:
        step = self.state.step
        if step == self.schedule.total:
            return True
        return self.schedule.ends_epoch(step) if every is None else step % every == 0

    def _evaluate(self, valid: Objective, log: Metrics) -> bool:
        """Measure the validation loss, and whether it is the lowest. Before the first step it only marks the start."""
        settings, state = self.job.settings, self.state
        found = measure_all(self.job.network, valid, settings.micro_tokens, self.company)
        loss, finite = found.loss, math.isfinite(found.loss)
        epoch = round(self.schedule.epoch(state.step), 6)
        metrics = {name: value if math.isfinite(value) else None for name, value in found.metrics.items()}
        log.log("eval", state.step, epoch=epoch, loss=loss if finite else None, **metrics)
        if not finite:
            self.progress.note(f"step {state.step}: the validation loss is {loss:g}; the step is not among the best")
        state.evaluated_step, self._valid_loss = state.step, loss
        improved = finite and state.step > 0 and (state.best_loss is None or loss < state.best_loss)
        if improved:
            state.best_loss, state.best_step, state.stale = loss, state.step, 0
        elif state.step > 0:
            state.stale += 1
            state.stopped_early = settings.early_stop is not None and state.stale >= settings.early_stop
        return improved

    def _checkpoint(self) -> None:
        """Called by all processes, since each has a part of a sharded model; the main one writes."""
        settings, state, folder = self.job.settings, self.state, self.job.run.folder
        before, state.saved_step = state.saved_step, state.step
        moments = self.optimizer.state()
        is_main = self.job.ranks.is_main
        with assembled(self.job.network, keep=is_main):
            if not is_main:
                return
            try:
                write_checkpoint(folder, state, moments, self.job.save_weights)
            except TrainingError:
                state.saved_step = before
                raise
        remove_old(folder, settings.keep, state.best_step if settings.load_best else None)

    def _take_up(self, checkpoint: Checkpoint) -> None:
        self.state = checkpoint.state
        self.optimizer.load(checkpoint.optimizer)
        self.scale.value, self.scale.good_steps = self.state.scale, self.state.good_steps

    def _stop(self, may_save: bool) -> str:
        """Save what is complete after an interrupt, and say how to go on."""
        step = self.state.step
        if may_save and not self._moving and step > 0 and self.state.saved_step != step:
            self._checkpoint()
        saved = self.state.saved_step
        where = f"checkpoint-{saved}" if saved else "no checkpoint yet"
        return f"stopped after step {step} of {self.schedule.total} ({where}); --resume goes on"

    def _not_finite(self, result: StepResult) -> TrainingError:
        step, saved = self.state.step, find_checkpoints(self.job.run.folder)
        bad = [str(number + 1) for number, share in enumerate(result.shares) if not math.isfinite(share)]
        where = f"micro-batch {', '.join(bad)} of {len(result.shares)}" if bad else "the gradient"
        intact = f"{saved[-1]} is intact" if saved else "no checkpoint was written yet"
        return TrainingError(
            f"step {step + 1}: loss {result.loss:g}, gradient norm {result.grad_norm:g} (first seen in {where}; "
            f"lr {self.schedule.rate(step):g}); the optimizer did not move, {intact}",
            hint="likely a learning rate that is too high, too little warm-up, train.clip off, fp16 overflow "
            "(train.dtype=bf16 or fp32), or weights that were not finite to begin with",
        )


@contextmanager
def _own_randomness(network: Any) -> Iterator[None]:
    """Leave the caller's random state as it was: every step seeds its own."""
    device = network.device
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        yield
