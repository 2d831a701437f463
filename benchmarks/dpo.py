"""Preference optimisation (DPO) against TRL: one long prompt with short answers, and rubric pairs of real programs.

    python -m benchmarks.dpo --out runs/bench/dpo.json [--quick] [--dtype bf16|fp32|best] [--rounds N] [--all]

How long it takes is said by --help.

The model is the SmolLM2-135M shape with random weights, LoRA r 16 on all linear layers, AdamW, beta 0.1.

    long prompt    random ids: a prompt of 800 tokens, 16 completions of 40 that are paired: 8 pairs an optimizer step
    rubric         real programs, graded in 4 criteria of 4 ratings: the 12 pairs of one student an optimizer step

    ours           the real training loop (`ramify.train.loop.Loop`), the reference computed once on the tree
    trl            TRL's DPOTrainer at its best: weights and adapters in one type, no autocast, gradient checkpointing
                   off, the reference computed once; pairs of like length follow each other, on a CPU one at a time,
                   which pads least, fills the products and needs the least memory (--trl-pairs takes more at once)
    trl_default    as its defaults have it: fp32 weights under bf16 autocast, checkpointing on, the reference computed
                   in every step, up to 8 pairs at a time

All sides see the same ids in the same steps, nothing is cut, and all start from the same adapter. Speed is pairs a
second; the reference's time is part of it. The first step warms up and its products are counted; on a machine where it
takes TRL longer than a minute it is the one that is timed. Beside the two rows: our seconds a pair as a prompt gets
2, 4, 8 and 16 completions, at 8 pairs a step (those of TRL do not change with it; --all shows them).
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from benchmarks.dpo_sides import BETA, COMPLETIONS, Work, ours, trl
from benchmarks.pairs import PAIRS_OF_A_STUDENT, default_data, default_tokenizer
from benchmarks.setting import SHAPES, Report, Side, Spread, alternate, emit, machine, run_side, show_table

MODULE = "benchmarks.dpo"
MINUTES = (
    "a round takes about 20 minutes on two cores that multiply bf16 natively, about 60 with --dtype best and up to 150 "
    "with --dtype bf16 on two that do not; --quick is one round, a third shorter"
)


@dataclass(frozen=True)
class Plan:
    """What is compared: one side's work as the pattern of all, TRL's type, rounds, whether TRL does all rows."""

    pattern: Work
    trl_dtype: str
    rounds: int
    all_rows: bool

    def side(self, kind: str, **changed: Any) -> Side:
        """One side of a row."""
        dtype = {"ours": self.pattern.dtype, "trl": self.trl_dtype, "trl_default": "fp32"}[kind]
        return Side(kind, asdict(replace(self.pattern, kind=kind, dtype=dtype, **changed)))


Results = dict[str, list[dict[str, Any]]]


def compare(plan: Plan, save: Callable[[Report], None]) -> Report:
    """All rows; `save` is called after each, so that what was measured is never lost."""
    report = Report(machine=machine(), settings={**asdict(plan), "lora_r": 16, "beta": BETA})
    for name, task in (("long_prompt", "long"), ("rubric", "rubric")):
        if task == "rubric" and not plan.pattern.data:
            print("rubric: no labs of real programs here; --data names them", file=sys.stderr)
            continue
        kinds = ["ours", "trl"] + (["trl_default"] if task == "long" or plan.all_rows else [])
        print(f"{name}:", file=sys.stderr)
        results = alternate(MODULE, [plan.side(kind, task=task) for kind in kinds], plan.rounds, failed(report, name))
        add_ratios(report, name, results)
        show(name, results)
        save(report)
    growth(plan, report)
    save(report)
    return report


def failed(report: Report, row: str) -> dict[str, str]:
    """Where the report names the peers that failed in one row of the table, and why."""
    found: dict[str, str] = report.peers.setdefault("failed", {}).setdefault(row, {})
    return found


def growth(plan: Plan, report: Report) -> None:
    """Seconds a pair as a prompt gets more completions."""
    print("completions of a prompt:", file=sys.stderr)
    kinds = ["ours", "trl"] if plan.all_rows else ["ours"]
    rows = []
    for completions in (each for each in COMPLETIONS if each <= 2 * plan.pattern.pairs):
        sides = [plan.side(kind, completions=completions) for kind in kinds]
        results = alternate(MODULE, sides, plan.rounds, failed(report, f"{completions}_completions"))
        seconds = {kind: Spread.of([run["seconds_per_pair"] for run in runs]) for kind, runs in results.items()}
        for kind, spread in seconds.items():
            target = report.ours if kind == "ours" else report.peers.setdefault(kind, {})
            target.setdefault("seconds_per_pair_by_completions", {})[str(completions)] = asdict(spread)
        fewer = results["ours"][0]["tokens"] / results["ours"][0]["computed_tokens"]
        texts = [seconds_text(seconds[kind]) if kind in seconds else "failed" for kind in kinds]
        rows.append((completions, f"{fewer:.1f}", *texts))
    columns = ("completions", "fewer tokens", *(f"{kind} s a pair" for kind in kinds))
    show_table("Completions of a prompt", columns, rows)


def add_ratios(report: Report, name: str, results: Results) -> None:
    """Medians of one row of the table, and our medians over the peers'."""
    medians = {kind: Spread.of([run["seconds_per_pair"] for run in runs]) for kind, runs in results.items()}
    for kind, runs in results.items():
        target = report.ours if kind == "ours" else report.peers.setdefault(kind, {})
        target[f"{name}_seconds_per_pair"] = asdict(medians[kind])
        target[f"{name}_reference_seconds_per_pair"] = runs[0]["reference_seconds_per_pair"]
        target[f"{name}_memory"] = Spread.of([run["memory"] for run in runs]).median
        target |= {f"{name}_{key}": runs[0][key] for key in ("losses", "tokens", "computed_tokens", "products")}
    own = results["ours"][0]
    report.ratio[f"tokens_{name}"] = own["tokens"] / own["computed_tokens"]
    for kind in results.keys() - {"ours"}:
        suffix = kind.removeprefix("trl")
        report.ratio[f"trl_{name}{suffix}"] = medians[kind].median / medians["ours"].median
    if "trl" in results:
        memory = report.ours[f"{name}_memory"] / report.peers["trl"][f"{name}_memory"]
        report.ratio[f"memory_{name}"] = memory
        report.ratio["memory"] = max(memory, report.ratio.get("memory", 0.0))
        curves = zip(own["losses"], results["trl"][0]["losses"], strict=False)  # TRL may have stopped earlier
        report.ratio[f"loss_difference_{name}"] = max(abs(a - b) for a, b in curves)


def seconds_text(spread: Spread) -> str:
    """Median and range, in as many digits as tell something."""
    return f"{spread.median:.3g} ({spread.low:.3g}-{spread.high:.3g})"


def show(name: str, results: Results) -> None:
    """One row of the comparison as a table."""
    spreads = {kind: Spread.of([run["seconds_per_pair"] for run in runs]) for kind, runs in results.items()}
    rows = []
    for kind, runs in results.items():
        first, memory = runs[0], max(run["memory"] for run in runs) / 2**20
        operations = first["products"]["operations"]
        kinds = ", ".join(f"{each} {100 * n / sum(operations.values()):.0f} %" for each, n in operations.items())
        over = f"{spreads[kind].median / spreads['ours'].median:.2f}"
        fewer = f"{first['tokens'] / first['computed_tokens']:.2f}"
        reference = f"{first['reference_seconds_per_pair']:.3g}"
        rows.append((kind, seconds_text(spreads[kind]), over, reference, fewer, f"{memory:,.0f}", kinds))
    columns = ("side", "s a pair", "over ours", "of it reference", "fewer tokens", "peak MiB", "products in")
    show_table(f"DPO, {name.replace('_', ' ')}", columns, rows)
    if "trl" in results:
        curves = [[f"{loss:.4f}" for loss in results[kind][0]["losses"]] for kind in ("ours", "trl")]
        print(f"  losses: ours {', '.join(curves[0])}; TRL's {', '.join(curves[1])}")


def choose_dtypes(asked: str, pattern: Work) -> tuple[str, str]:
    """(ours, TRL's) type of weights; `best` tries both types on both sides on one pair a step."""
    if asked != "best":
        return asked, asked
    chosen = []
    for kind in ("ours", "trl"):
        small = replace(pattern, kind=kind, task="long", steps=2, pairs=1, completions=2)
        sides = [Side(f"{kind} {dtype}", asdict(replace(small, dtype=dtype))) for dtype in ("fp32", "bf16")]
        seconds = {side.spec["dtype"]: run_side(MODULE, side)["seconds_per_pair"] for side in sides}
        print(f"{kind}: {seconds} seconds a pair", file=sys.stderr)
        chosen.append(min(seconds, key=lambda dtype: seconds[dtype]))
    return chosen[0], chosen[1]


def main() -> None:
    """Compare, print the tables, write the report."""
    asked = parse()
    if asked.side:
        work = Work(**json.loads(asked.side))
        emit((ours if work.kind == "ours" else trl)(work, work.make_steps()))
        return
    data = asked.data or (default_data() if default_data().is_file() else None)
    pattern = Work(
        "ours",
        steps=2 if asked.quick else asked.steps,
        shape=asked.shape,
        pairs=asked.pairs,
        completions=2 * asked.pairs,
        students=asked.students,
        at_once=asked.trl_pairs,
        data="" if data is None else str(data),
        tokenizer=str(asked.tokenizer or default_tokenizer()),
    )
    own, theirs = choose_dtypes(asked.dtype, pattern)
    plan = Plan(replace(pattern, dtype=own), theirs, 1 if asked.quick else asked.rounds, asked.all)
    compare(plan, lambda report: report.write(asked.out) if asked.out else None)
    if asked.out:
        print(f"\nwritten to {asked.out}")


def parse() -> argparse.Namespace:
    """What was asked on the command line."""
    parser = argparse.ArgumentParser(description=f"{(__doc__ or '').splitlines()[0]} Time: {MINUTES}.")
    parser.add_argument("--out", type=Path, help="JSON file for the report")
    parser.add_argument("--rounds", type=int, default=3, help="fresh processes of each side (medians are reported)")
    parser.add_argument("--steps", type=int, default=3, help="optimizer steps in each; the first one warms up")
    parser.add_argument(
        "--dtype", choices=("bf16", "fp32", "best"), default="bf16", help="best: both are tried on each side"
    )
    parser.add_argument("--shape", choices=tuple(SHAPES), default="135M")
    parser.add_argument("--quick", action="store_true", help="one round of 2 steps")
    parser.add_argument("--all", action="store_true", help="TRL in every row, its defaults on the rubric too")
    parser.add_argument("--data", type=Path, help="labs of real programs (see benchmarks.rubric)")
    parser.add_argument("--tokenizer", type=Path, help="folder with the tokenizer.json that programs are read with")
    parser.add_argument(
        "--pairs", type=int, default=8, choices=(1, 2, 4, 8), help="of the long prompt, all in one step"
    )
    parser.add_argument("--students", type=int, default=1, help=f"in a step of rubric, {PAIRS_OF_A_STUDENT} pairs each")
    parser.add_argument("--trl-pairs", type=int, default=0, help="pairs TRL at its best computes at once")
    parser.add_argument("--side", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if min(asked.rounds, asked.steps - 1, asked.students) < 1 or asked.trl_pairs < 0:
        parser.error("at least 1 round, 2 steps and 1 student are needed")
    if asked.data is not None and not asked.data.is_file():
        parser.error(f"--data {asked.data}: no such file")
    return asked


if __name__ == "__main__":
    main()
