"""Supervised fine-tuning against TRL: short chats, LoRA r 16 on all linear layers, 8 sequences an optimizer step.

    python -m benchmarks.sft --out runs/bench/sft.json [--quick] [--dtype bf16|fp32|best] [--rounds N] [--steps N]

The model is the SmolLM2-135M shape with random weights, the data random ids: prompts of 30 to 120 tokens, completions
of 5 to 120, nothing shared; then the same sequences behind a common system turn of 100 tokens; then chats of several
turns, whose tokens and loss are held against packing alone (see `turns`). Both sides see the same sequences in the
same steps, start from the same adapter, and use AdamW at the same constant learning rate.

    ours          the real training loop (`ramify.train.loop.Loop`), with everything a run does
    trl           TRL's SFTTrainer at its best: weights and adapters in one type, no autocast, batches sorted by
                  length, gradient checkpointing off
    trl_default   as its defaults have it: fp32 weights under bf16 autocast, checkpointing on, random batches

On two cores without bf16 products one round of 6 steps takes 17 minutes.

Speed is tokens of the unshared sequences a second, the first steps left out on both sides. Tokens a second of processor
time are shown beside it: on a machine that others use they are the steadier figure.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from benchmarks import turns
from benchmarks.setting import (
    SHAPES,
    VOCABULARY,
    Report,
    Side,
    Spread,
    alternate,
    emit,
    lora_settings,
    machine,
    peak_memory,
    product_rates,
    random_model,
    run_side,
    show_table,
    trl_settings,
)

MODULE = "benchmarks.sft"
BATCH = 8
WARM_UP = 2
LEAST_STEPS = WARM_UP + 2  # the last step is counted, not timed
LEARNING_RATE = 1e-3
SYSTEM_TOKENS = 100
SEED = 1


@dataclass(frozen=True)
class Work:
    """What one side does.

    Attributes:
        kind: `ours`, `trl`, `trl_default`, `turns` or `rates`.
        dtype: of the weights: `fp32` or `bf16`.
        steps: optimizer steps; the first `WARM_UP` and the last are not timed.
        system: tokens of the common system turn.
        shape: of the model.
    """

    kind: str
    dtype: str = "bf16"
    steps: int = 12
    system: int = 0
    shape: str = "135M"


@dataclass(frozen=True)
class Row:
    """One sequence: ids, and how many of them are the prompt."""

    ids: tuple[int, ...]
    prompt: int


def make_rows(steps: int, system: int) -> list[Row]:
    """Random sequences in training order: step by step, of like length within a step, the steps shuffled."""
    draws = random.Random(SEED)
    prefix = tuple(draws.randrange(2, VOCABULARY) for _ in range(system))
    rows = []
    for _ in range(steps * BATCH):
        prompt, completion = draws.randint(30, 120), draws.randint(5, 120)
        ids = tuple(draws.randrange(2, VOCABULARY) for _ in range(prompt + completion))
        rows.append(Row(prefix + ids, system + prompt))
    rows.sort(key=lambda row: len(row.ids))
    batches = [rows[start : start + BATCH] for start in range(0, len(rows), BATCH)]
    draws.shuffle(batches)
    return [row for batch in batches for row in batch]


# --- the sides, each in a process of its own ---------------------------------------------------------------------


def ours(work: Work, rows: list[Row]) -> dict[str, Any]:
    """The training loop of Ramify."""
    from benchmarks.products import StepWatch
    from ramify.base.config import Train
    from ramify.base.runs import create_run
    from ramify.model.fused import fuse
    from ramify.train.loop import Job, Loop

    network = adapted_model(work)
    fuse(network)
    watch = StepWatch(work.steps, time.perf_counter, time.process_time)

    class Watcher:
        """A progress that keeps time."""

        def start(self, stage: str, total: int, done: int = 0) -> None:
            watch.done(0)

        def update(self, done: int, **values: float) -> None:
            watch.losses.append(values["loss"])
            watch.done(done)

        def note(self, message: str) -> None:
            print(message, file=sys.stderr)

        def close(self) -> None:
            pass

    settings = Train(
        lr=LEARNING_RATE, max_steps=work.steps, batch_size=BATCH, schedule="constant", warmup=0.0, tensorboard=False
    )
    with tempfile.TemporaryDirectory() as folder:
        run = create_run(Path(folder), None)
        job = Job(network, in_order(rows, settings), None, settings, SEED, run, save_weights=lambda _: None)
        Loop(job, None, Watcher()).run()
    return measured(work, watch, rows)


def in_order(rows: list[Row], settings: Any) -> Any:
    """The rows as training data, placed so that the loop's own shuffle brings them back into their order."""
    from ramify.base.types import TokenSequence
    from ramify.train.objective import Supervised
    from ramify.train.schedule import Schedule

    groups = [tuple(range(start, start + BATCH)) for start in range(0, len(rows), BATCH)]
    schedule = Schedule.of(groups, settings, SEED)
    places = [place for step in range(len(groups)) for place in schedule.indices(step)]
    placed = dict(zip(places, rows, strict=True))
    sequences = [TokenSequence.of(row.ids[: row.prompt], row.ids[row.prompt :]) for _, row in sorted(placed.items())]
    return Supervised(sequences, groups)


def trl(work: Work, rows: list[Row]) -> dict[str, Any]:
    """TRL's SFTTrainer, at its best or at its defaults."""
    from datasets import Dataset
    from transformers import TrainerCallback
    from trl import SFTConfig, SFTTrainer

    from benchmarks.products import StepWatch

    best = work.kind == "trl"
    network = adapted_model(work)
    if best:
        network = network.to(network.get_base_model().dtype)
    watch = StepWatch(work.steps, time.perf_counter, time.process_time)

    class Watcher(TrainerCallback):  # type: ignore[misc]
        """A callback that keeps time."""

        def on_train_begin(self, *_: Any, **__: Any) -> None:
            watch.done(0)

        def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            watch.done(state.global_step)

        def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, float], **_: Any) -> None:
            if "loss" in logs:
                watch.losses.append(float(logs["loss"]))

    if not best:
        random.Random(SEED + 1).shuffle(rows)
    labels = [[-100] * row.prompt + list(row.ids[row.prompt :]) for row in rows]
    data = Dataset.from_dict({"input_ids": [list(row.ids) for row in rows], "labels": labels})
    chosen = {"bf16": False, "gradient_checkpointing": False} if best else {}
    with tempfile.TemporaryDirectory() as folder:
        settings = SFTConfig(
            per_device_train_batch_size=BATCH,
            max_steps=work.steps,
            learning_rate=LEARNING_RATE,
            **trl_settings(folder, SEED),
            **chosen,
        )
        trainer = SFTTrainer(network, settings, train_dataset=data, processing_class=tokenizer(), callbacks=[Watcher()])
        trainer.train()
    return measured(work, watch, rows)


def adapted_model(work: Work) -> Any:
    """The random model with a fresh adapter, the same on both sides; adapter weights in fp32, as PEFT leaves them."""
    import torch
    from peft import get_peft_model

    weights = "fp32" if work.kind == "trl_default" else work.dtype
    network = random_model(work.shape, weights)
    if torch.cuda.is_available():
        network = network.to("cuda")
    torch.manual_seed(SEED)
    return get_peft_model(network, lora_settings())


def tokenizer() -> Any:
    """A tokenizer that TRL can be given: it only asks for the padding token."""
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from transformers import PreTrainedTokenizerFast

    return PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer(WordLevel({"<eos>": 0, "<pad>": 1}, unk_token="<pad>")),
        eos_token="<eos>",
        pad_token="<pad>",
    )


def measured(work: Work, watch: Any, rows: list[Row]) -> dict[str, Any]:
    """What a side reports."""
    tokens = [sum(len(row.ids) for row in rows[start : start + BATCH]) for start in range(0, len(rows), BATCH)]
    return {
        "work": asdict(work),
        "tokens_per_second": sum(tokens[WARM_UP:-1]) / sum(watch.seconds[WARM_UP:]),
        "tokens_per_cpu_second": sum(tokens[WARM_UP:-1]) / sum(watch.cpu_seconds[WARM_UP:]),
        "seconds": watch.seconds,
        "losses": watch.losses,
        "memory": peak_memory(),
        "products": watch.products.summary(),
        "operations_per_token": sum(watch.products.operations.values()) / tokens[-1],
    }


# --- the comparison ----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Plan:
    """What is compared: weights of each side, rounds, steps, shape."""

    ours: str
    trl: str
    rounds: int
    steps: int
    shape: str

    def sides(self, system: int) -> list[Side]:
        """The sides of one row of the table."""
        works = [
            Work("ours", self.ours, self.steps, system, self.shape),
            Work("trl", self.trl, self.steps, system, self.shape),
            Work("trl_default", "fp32", self.steps, system, self.shape),
        ]
        return [Side(work.kind, asdict(work)) for work in works]


def compare(plan: Plan) -> Report:
    """Both rows of the table, and the rates of plain products measured between them."""
    rates = Side("rates", asdict(Work("rates", shape=plan.shape)))
    report = Report(machine=machine(), settings={**asdict(plan), "batch": BATCH, "lora_r": 16, "warm_up": WARM_UP})
    for name, system in (("short chats", 0), ("common system turn", SYSTEM_TOKENS)):
        print(f"{name}:", file=sys.stderr)
        results = alternate(MODULE, [*plan.sides(system), rates], plan.rounds)
        report.machine["gflops"] = best_rates([*results.pop("rates")], report.machine.get("gflops"))
        prefix = "" if system == 0 else "system_"
        add_ratios(report, prefix, results)
        show(name, results, report)
    add_turns(
        report, run_side(MODULE, Side("turns", asdict(Work("turns", "fp32", plan.steps, SYSTEM_TOKENS, plan.shape))))
    )
    return report


def add_turns(report: Report, counted: dict[str, Any]) -> None:
    """The row about chats of several turns."""
    report.ours["turns"] = counted
    report.ratio["turns_tokens"] = counted["packed"] / counted["computed"]
    report.ratio["turns_loss_difference"] = abs(counted["loss"] - counted["packed_loss"])
    print(f"\nSFT, multi-turn chats with a common system turn\n{turns.show(counted)}")


def best_rates(
    results: list[dict[str, Any]], before: dict[str, dict[str, float]] | None
) -> dict[str, dict[str, float]]:
    """The highest rate seen of each type and number of rows."""
    seen = [result["rates"] for result in results] + ([] if before is None else [before])
    return {kind: {rows: max(each[kind][rows] for each in seen) for rows in seen[0][kind]} for kind in seen[0]}


def add_ratios(report: Report, prefix: str, results: dict[str, list[dict[str, Any]]]) -> None:
    """Medians of one row of the table, and our medians over the peers'."""
    speed = {name: Spread.of([each["tokens_per_second"] for each in runs]) for name, runs in results.items()}
    memory = {name: Spread.of([each["memory"] for each in runs]).median for name, runs in results.items()}
    for name, runs in results.items():
        target = report.ours if name == "ours" else report.peers.setdefault(name, {})
        target[prefix + "tokens_per_second"] = asdict(speed[name])
        target[prefix + "tokens_per_cpu_second"] = asdict(Spread.of([each["tokens_per_cpu_second"] for each in runs]))
        target[prefix + "memory"] = memory[name]
        target[prefix + "losses"] = runs[0]["losses"]
        target[prefix + "products"] = runs[0]["products"]
    for name in ("trl", "trl_default"):
        report.ratio[prefix + name] = speed["ours"].median / speed[name].median
    report.ratio[prefix + "memory"] = memory["ours"] / memory["trl"]
    report.ratio[prefix + "loss_difference"] = max(
        abs(a - b) for a, b in zip(results["ours"][0]["losses"], results["trl"][0]["losses"], strict=True)
    )
    achieved = speed["ours"].median * results["ours"][0]["operations_per_token"] * 1e-9
    for kind, rates in report.machine["gflops"].items():
        report.ratio[f"{prefix}share_of_{kind}_rate"] = achieved / max(rates.values())


def show(name: str, results: dict[str, list[dict[str, Any]]], report: Report) -> None:
    """One row of the comparison as a table."""
    ours_speed = Spread.of([each["tokens_per_second"] for each in results["ours"]]).median
    rows = []
    for side, runs in results.items():
        speed = Spread.of([each["tokens_per_second"] for each in runs])
        operations = runs[0]["products"]["operations"]
        kinds = ", ".join(f"{kind} {100 * each / sum(operations.values()):.0f} %" for kind, each in operations.items())
        memory = max(each["memory"] for each in runs) / 2**20
        rows.append(
            (side, speed, f"{ours_speed / speed.median:.2f}", f"{memory:,.0f}", runs[0]["work"]["dtype"], kinds)
        )
    show_table(f"SFT, {name}", ("side", "tokens/s", "ours over it", "peak MiB", "weights", "products in"), rows)
    own, theirs = results["ours"][0]["work"]["dtype"], results["trl"][0]["work"]["dtype"]
    if own != theirs:
        print(f"  weights: ours {own}, TRL's {theirs}: each side has the type it is faster with here")
    rates = {kind: max(each.values()) for kind, each in report.machine["gflops"].items()}
    prefix = "" if name == "short chats" else "system_"
    shares = ", ".join(f"{100 * report.ratio[f'{prefix}share_of_{kind}_rate']:.0f} % of {kind}" for kind in rates)
    print(f"  plain products here: {rates} GFLOP/s; our step reaches {shares}")
    print(f"  largest difference between the loss curves: {report.ratio[prefix + 'loss_difference']:.4f}")


def choose_dtypes(asked: str, shape: str) -> tuple[str, str]:
    """(ours, TRL's) type of weights; `best` tries both types on both sides for a few steps."""
    if asked != "best":
        return asked, asked
    chosen = []
    for kind in ("ours", "trl"):
        sides = [
            Side(f"{kind} {dtype}", asdict(Work(kind, dtype, WARM_UP + 3, shape=shape))) for dtype in ("fp32", "bf16")
        ]
        speeds = {side.spec["dtype"]: run_side(MODULE, side)["tokens_per_second"] for side in sides}
        print(f"{kind}: {speeds} tokens/s", file=sys.stderr)
        chosen.append(max(speeds, key=lambda dtype: speeds[dtype]))
    return chosen[0], chosen[1]


def main() -> None:
    """Compare, print the tables, write the report."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--out", type=Path, help="JSON file for the report")
    parser.add_argument("--rounds", type=int, default=3, help="fresh processes of each side (medians are reported)")
    parser.add_argument("--steps", type=int, default=10, help="optimizer steps in each")
    parser.add_argument(
        "--dtype", choices=("bf16", "fp32", "best"), default="bf16", help="best: both are tried on each side"
    )
    parser.add_argument("--shape", choices=tuple(SHAPES), default="135M")
    parser.add_argument("--quick", action="store_true", help="one round of 6 steps")
    parser.add_argument("--side", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.side:
        side_main(asked.side)
        return
    rounds, steps = (1, 6) if asked.quick else (asked.rounds, asked.steps)
    if steps < LEAST_STEPS or rounds < 1:
        parser.error(f"--steps {steps} --rounds {rounds}: at least {LEAST_STEPS} steps and 1 round are needed")
    report = compare(Plan(*choose_dtypes(asked.dtype, asked.shape), rounds, steps, asked.shape))
    if asked.out:
        report.write(asked.out)
        print(f"\nwritten to {asked.out}")


def side_main(spec: str) -> None:
    """Run one side and print its result."""
    work = Work(**json.loads(spec))
    if work.kind == "rates":
        emit({"rates": product_rates(work.shape)})
        return
    if work.kind == "turns":
        emit(turns.count(work.shape, work.steps, work.system))
        return
    rows = make_rows(work.steps, work.system)
    emit((ours if work.kind == "ours" else trl)(work, rows))


if __name__ == "__main__":
    main()
