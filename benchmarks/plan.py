"""Plans against the runs they are about: peak memory and seconds, foreseen and real.

    python -m benchmarks.plan --out runs/bench/plan.json [--only NAME …] [--rounds N]

    sft         direct answers of the unit conversion recipe, an adapter on nano
    sft-full    the same with every weight trained
    dpo         preference pairs on nano, with a reference
    chat        the chat recipe on nano, with validation rows
    135M        an adapter on the SmolLM2-135M shape with random weights

A plan and its run follow each other, each in processes of their own, as a user starts them. Memory is the largest
resident size (on a GPU: of its allocator) of the process that trains. Seconds are of the wall clock, from the start of
the process to its end. Other programs on the machine move both sides of that ratio at different moments; beside it
stands the ratio of processor seconds, which they move less. Of several rounds the median is given.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.setting import LIMIT, MARK, Report, emit, machine, peak_memory, random_model, show_table

MODULE = "benchmarks.plan"
ROOT = Path(__file__).resolve().parent.parent
RECIPES = ROOT / "recipes"
SHAPE = "135M"


@dataclass(frozen=True)
class Recipe:
    """A run that is planned and then carried out.

    Attributes:
        name: as it is listed.
        words: what follows `ramify plan` and `ramify train`; `{data}` is the folder of made rows and models.
    """

    name: str
    words: tuple[str, ...]


SFT = RECIPES / "unit-conversion" / "sft.yaml"
ALL = (
    Recipe("sft", (str(SFT), "model=nano", "train.max_steps=90")),
    Recipe(
        "sft-full",
        (str(RECIPES / "unit-conversion" / "sft-full.yaml"), "model=nano", "train.lr=1e-3", "train.max_steps=40"),
    ),
    Recipe(
        "dpo",
        (
            *("method=dpo", "model=nano", "data.train={data}/pairs.jsonl", "lora={r: 32}"),
            *("train.batch_size=8", "train.epochs=2", "train.dtype=fp32"),
        ),
    ),
    Recipe(
        "chat",
        (
            *(str(RECIPES / "chat" / "nano.yaml"), "data.train={data}/chat/train.jsonl"),
            *("data.valid={data}/chat/valid.jsonl", "train.max_steps=24"),
        ),
    ),
    Recipe(
        SHAPE,
        (
            *(str(SFT), "model={data}/135M", "train.dtype=fp32", "train.batch_size=8", "train.max_steps=6"),
            *("data.valid=null", "task.rows=400"),
        ),
    ),
)


@dataclass(frozen=True)
class Both:
    """A figure foreseen and the real one."""

    foreseen: float
    real: float

    @property
    def ratio(self) -> float:
        """Foreseen over real."""
        return self.foreseen / self.real


@dataclass(frozen=True)
class Round:
    """One plan and one run.

    Attributes:
        memory: bytes.
        seconds: of the whole run.
        busy: seconds of processor time, of all threads.
        planning: seconds that the plan took; `planning_busy` of processor time, of both its processes.
        error: relative, as the plan said it.
    """

    memory: Both
    seconds: Both
    busy: Both
    planning: float
    planning_busy: float
    error: float


def main() -> None:
    """Plan and run each recipe, round by round, and write what was found."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("runs/bench/plan.json"))
    parser.add_argument("--only", nargs="*", choices=[each.name for each in ALL])
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--side", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.side is not None:
        return real_side(json.loads(asked.side))
    by_name = {each.name: each for each in ALL}
    chosen = [by_name[name] for name in asked.only or by_name]
    with tempfile.TemporaryDirectory(prefix="ramify-bench-") as folder:
        make_material(Path(folder), chosen)
        found = {each.name: [one_round(each, Path(folder)) for _ in range(asked.rounds)] for each in chosen}
    show(found)
    report(found).write(asked.out)


def make_material(folder: Path, chosen: list[Recipe]) -> None:
    """Rows and models that the chosen recipes read."""
    names = {each.name for each in chosen}
    if "chat" in names:
        rows = [sys.executable, str(RECIPES / "chat" / "rows.py"), "--out", str(folder / "chat")]
        subprocess.run(rows, check=True, capture_output=True)
    if "dpo" in names:
        write_pairs(folder / "pairs.jsonl")
    if SHAPE in names:
        write_model(folder / SHAPE)


def write_pairs(path: Path, prompts: int = 120, each: int = 4) -> None:
    """Pairs whose prompts begin alike, as those of one assignment do, and differ in length."""
    opening = "Here is the work of a student. Say how good it is, and why. " * 3
    rows = [
        {
            "prompt": f"{opening}The answer to question {number} is {number * 7 % 23}{' and more' * (number % 9)}.",
            "chosen": f"{number % 5} of 5: the answer is {'nearly ' * place}right",
            "rejected": f"{place} of 5: {'no ' * (1 + number % 6)}",
        }
        for number in range(prompts)
        for place in range(each)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def write_model(folder: Path) -> None:
    """The 135M shape with random weights, behind the tokenizer of nano."""
    from ramify.model.outline import load_tokenizer
    from ramify.model.source import Source

    random_model(SHAPE, "fp32").save_pretrained(str(folder))
    load_tokenizer(Source("nano")).save_pretrained(str(folder))


def one_round(recipe: Recipe, folder: Path) -> Round:
    """The plan, then the run."""
    words = [word.format(data=folder) if "{data}" in word else word for word in recipe.words]
    print(f"  {recipe.name}: planning …", file=sys.stderr, flush=True)
    began, busy = time.perf_counter(), processor_seconds()
    plan = planned(words, folder)
    planning, planning_busy = time.perf_counter() - began, processor_seconds() - busy
    print(f"  {recipe.name}: {plan['verdict']}", file=sys.stderr, flush=True)
    began = time.perf_counter()
    real = really(words, folder)
    seconds = time.perf_counter() - began
    found = Round(
        memory=Both(plan["memory"]["bytes"], real["peak"]),
        seconds=Both(plan["duration"]["seconds"], seconds),
        busy=Both(plan["duration"]["busy"], real["busy"]),
        planning=planning,
        planning_busy=planning_busy,
        error=plan["duration"]["error"],
    )
    print(f"  {recipe.name}: {as_row(found)}", file=sys.stderr, flush=True)
    return found


def processor_seconds() -> float:
    """Of all processes started so far that have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def planned(words: list[str], folder: Path) -> dict[str, Any]:
    """What `ramify plan` writes."""
    out = folder / "plan.json"
    command = [sys.executable, "-m", "ramify", "plan", *words, f"out={folder / 'run'}", "--overwrite"]
    done = subprocess.run([*command, "--out", str(out)], capture_output=True, text=True, check=False, timeout=LIMIT)
    if done.returncode:
        sys.exit(f"the plan failed ({done.returncode}):\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}")
    found: dict[str, Any] = json.loads(out.read_text(encoding="utf-8"))
    return found


def really(words: list[str], folder: Path) -> dict[str, Any]:
    """The same words given to `ramify train`, in a process that tells its largest memory at its end."""
    side = json.dumps([*words, f"out={folder / 'run'}", "--overwrite"])
    command = [sys.executable, "-m", MODULE, "--side", side]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=LIMIT)
    lines = [line for line in done.stdout.splitlines() if line.startswith(MARK)]
    if not lines:
        sys.exit(f"the run failed ({done.returncode}):\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}")
    found: dict[str, Any] = json.loads(lines[-1][len(MARK) :])
    return found


def real_side(words: list[str]) -> None:
    """`ramify train` in this process."""
    from ramify.cli.main import main as ramify

    sys.argv = ["ramify", "train", *words]
    try:
        ramify()
    except SystemExit as ended:
        if not ended.code:
            emit({"peak": peak_memory(), "busy": time.process_time()})
        raise


def show(found: dict[str, list[Round]]) -> None:
    """One line a recipe, medians of its rounds."""
    rows = [
        (
            name,
            f"{middle([each.memory.foreseen for each in rounds]) / 1e6:,.0f}",
            f"{middle([each.memory.real for each in rounds]) / 1e6:,.0f}",
            f"{middle([each.memory.ratio for each in rounds]):.3f}",
            f"{middle([each.seconds.foreseen for each in rounds]):,.1f}",
            f"{middle([each.seconds.real for each in rounds]):,.1f}",
            f"{middle([each.seconds.ratio for each in rounds]):.3f}",
            f"{middle([each.busy.ratio for each in rounds]):.3f}",
            f"{middle([each.planning for each in rounds]):,.1f}",
            f"{middle([each.planning_busy for each in rounds]):,.1f}",
        )
        for name, rounds in found.items()
    ]
    columns = (
        "recipe",
        "MB foreseen",
        "real",
        "ratio",
        "s foreseen",
        "real",
        "ratio",
        "processor",
        "s to plan",
        "of processor",
    )
    show_table("plans and their runs", columns, rows)


def report(found: dict[str, list[Round]]) -> Report:
    """Ratios first: the median over the recipes, then each."""
    memory = {name: middle([each.memory.ratio for each in rounds]) for name, rounds in found.items()}
    seconds = {name: middle([each.seconds.ratio for each in rounds]) for name, rounds in found.items()}
    busy = {name: middle([each.busy.ratio for each in rounds]) for name, rounds in found.items()}
    off = {
        "memory: median distance from 1": middle([abs(each - 1) for each in memory.values()]),
        "seconds: median distance from 1": middle([abs(each - 1) for each in seconds.values()]),
        "processor seconds: median distance from 1": middle([abs(each - 1) for each in busy.values()]),
        "longest plan in seconds": max(each.planning for rounds in found.values() for each in rounds),
        "longest plan in processor seconds": max(each.planning_busy for rounds in found.values() for each in rounds),
    }
    ratios = {f"{name}: memory": each for name, each in memory.items()}
    ratios |= {f"{name}: seconds": each for name, each in seconds.items()}
    ratios |= {f"{name}: processor seconds": each for name, each in busy.items()}
    ours = {name: [as_row(each) for each in rounds] for name, rounds in found.items()}
    return Report({**off, **ratios}, ours, machine={**machine(), "load": os.getloadavg()})


def as_row(each: Round) -> dict[str, float]:
    """One round as plain figures."""
    return {
        "bytes_foreseen": each.memory.foreseen,
        "bytes": each.memory.real,
        "seconds_foreseen": each.seconds.foreseen,
        "seconds": each.seconds.real,
        "processor_seconds_foreseen": each.busy.foreseen,
        "processor_seconds": each.busy.real,
        "planning": each.planning,
        "planning_processor": each.planning_busy,
        "error": each.error,
    }


def middle(values: list[float]) -> float:
    """The median."""
    return statistics.median(values)


if __name__ == "__main__":
    main()
