"""A run tried out in a process of its own: the same imports, model, rows and optimizer, and a few of its steps.

    python -m ramify.plan.rehearse FOLDER     reads FOLDER/asked.json, writes FOLDER/found.json

The process is shaped as `ramify train` is, so that its largest memory is the run's. Steps grow: parts of the largest
step first, so that what does not fit is foreseen before it is tried. The learning rate is 0.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ramify.base.config import RunConfig
from ramify.base.config_file import parse_config
from ramify.base.errors import RamifyError
from ramify.base.progress import SILENT
from ramify.base.records import write_json
from ramify.base.runs import Run, create_run
from ramify.base.types import TokenSequence
from ramify.model.logprobs import sequence_logprobs, without_dropout
from ramify.model.lora import save_trained
from ramify.plan.counts import RunSize, packed, parts_of, reference_parts, step_sizes
from ramify.plan.draws import drawn_material
from ramify.plan.footprint import uses_reference
from ramify.plan.measure import ASKED, FOUND
from ramify.plan.measured import Drawing, Measured, Reading
from ramify.plan.peak import peak_memory
from ramify.plan.tries import Limits, choose, take
from ramify.train import dpo, sft
from ramify.train.checkpoint import checkpoint_folder, copy_weights
from ramify.train.dryrun import Course
from ramify.train.loop import Job, Loop
from ramify.train.material import Material
from ramify.train.rows import has_validation
from ramify.train.staged import Circumstances, Staged, stage
from ramify.tree.pack import pack

_PASSES = 6.0
"""Seconds that forward passes of each kind are measured for."""


def main(folder: Path) -> None:
    """Try what FOLDER/asked.json names, and write what was found, or the error that the run would end with."""
    asked = json.loads((folder / ASKED).read_text(encoding="utf-8"))
    starting = time.time() - asked["spawned"]
    limits = Limits(asked["seconds"], asked["memory"])
    config = parse_config({**asked["config"], "out": str(folder / "run")})
    found: dict[str, Any]
    try:
        found = {"measured": asdict(rehearse(config, starting, limits))}
    except RamifyError as error:
        found = {"error": {"kind": type(error).__name__, "message": error.message, "hint": error.hint}}
    except (MemoryError, RuntimeError) as error:
        if not _is_out_of_memory(error):
            raise
        found = {"measured": None}
    write_json(folder / FOUND, found)


@dataclass(frozen=True)
class _Ready:
    """A run that is about to take its first step.

    Attributes:
        loading: seconds to load the model and put the adapter on.
        drawing: what was drawn before, of a method that samples.
        busy: seconds of processor time so far, those of drawing left out.
        loaded: largest memory so far, in bytes.
    """

    staged: Staged[Any]
    loading: float
    drawing: Drawing | None
    busy: float
    loaded: int


def rehearse(config: RunConfig, starting: float, limits: Limits) -> Measured:
    """Do a little of everything that a run does.

    Args:
        starting: seconds that the process has taken so far.

    Raises:
        RamifyError: what the run would refuse.
    """
    ready = _make_ready(config, limits)
    course = Course.of(config, ready.staged.data)
    run = create_run(config.out or Path("run"), config)
    sizes = step_sizes(course, config.train.micro_tokens)
    tries = choose(course, sizes, config.train.micro_tokens)
    began, busy = time.perf_counter(), time.process_time()
    steps, saving = take(Loop(_job(ready.staged, course, run), None, SILENT), tries, limits)
    share = (time.process_time() - busy) / (time.perf_counter() - began)
    checkpoint = checkpoint_folder(run.folder, len(steps))
    began = time.perf_counter()
    copy_weights(checkpoint, run.folder / "result")
    copying = time.perf_counter() - began
    evaluation, reference = _readings(config, ready.staged, course)
    return Measured(
        size=RunSize.of(config, course, sizes),
        device=str(ready.staged.prepared.loaded.device),
        starting=starting,
        rendering=ready.staged.data_seconds,
        loading=ready.loading,
        loaded=ready.loaded,
        steps=tuple(steps),
        saving=saving,
        copying=copying,
        checkpoint=_bytes(checkpoint),
        result=_bytes(run.folder / "result"),
        evaluation=evaluation,
        reference=reference,
        drawing=ready.drawing,
        busy=ready.busy,
        share=share,
        reached=any(each.largest == max(one.largest for one in tries) for each in steps),
    )


def _make_ready(config: RunConfig, limits: Limits) -> _Ready:
    """Rows and model, as the run has them before its first step."""
    method: Any = dpo.METHOD if config.method == "dpo" else sft.METHOD
    busy, drawing = time.process_time(), None
    if config.method == "rft":
        drawing, material = drawn_material(config, limits.seconds / 2)
    else:
        began = time.perf_counter()
        train = method.read(config, "train")
        valid = method.read(config, "valid") if has_validation(config.data) else []
        material = Material(train, valid, time.perf_counter() - began)
    drawn = time.process_time() - busy if drawing is not None else 0.0
    began = time.perf_counter()
    staged = stage(method, config, material, resume=False, found=Circumstances(SILENT))
    loading = time.perf_counter() - began - (staged.data_seconds - material.seconds)
    loaded = peak_memory(staged.prepared.loaded.device)
    return _Ready(staged, loading, drawing, time.process_time() - drawn, loaded)


def _is_out_of_memory(error: Exception) -> bool:
    """Torch has a class of its own for CUDA alone."""
    text = str(error).lower()
    return isinstance(error, MemoryError) or "out of memory" in text or "can't allocate memory" in text


def _job(staged: Staged[Any], course: Course, run: Run) -> Job:
    config, loaded = staged.config, staged.prepared.loaded
    settings = config.train.model_copy(update={"log_every": 1, "save_every": 1 << 40, "early_stop": None})
    return Job(loaded.network, course.train, None, settings, config.seed, run, lambda to: save_trained(loaded, to))


def _readings(config: RunConfig, staged: Staged[Any], course: Course) -> tuple[Reading | None, Reading | None]:
    """An evaluation and a reference, where the run has them."""
    network, tokens = staged.prepared.loaded.network, config.train.micro_tokens
    evaluation = reference = None
    if course.valid is not None:
        began = time.perf_counter()
        parts = parts_of(course.valid, tokens)
        evaluation = _read(network, parts, time.perf_counter() - began)
    if uses_reference(config):
        began = time.perf_counter()
        parts = reference_parts(course, tokens)
        reference = _read(network, parts, time.perf_counter() - began)
    return evaluation, reference


def _read(network: Any, parts: Sequence[Sequence[TokenSequence]], cutting: float) -> Reading:
    """Forward passes, the largest first, until enough was seen."""
    sizes = sorted(((packed(part), number) for number, part in enumerate(parts)), reverse=True)
    computed, began = 0, time.perf_counter()
    with without_dropout(network):
        for size, number in sizes:
            float(sequence_logprobs(network, pack(parts[number]).to(network.device)).sum())
            computed += size
            if time.perf_counter() - began > _PASSES:
                break
    seconds = time.perf_counter() - began
    return Reading(sum(size for size, _ in sizes), computed, seconds, cutting, peak_memory(network.device))


def _bytes(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


if __name__ == "__main__":
    main(Path(sys.argv[1]))
