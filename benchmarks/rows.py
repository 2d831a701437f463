"""A million rows: mixed, checked, and trained on for a few steps, each in a fresh process of its own, beside others.

    python -m benchmarks.rows --out runs/bench/rows.json [--rows N]

The file is generated: chats of one to three turns, 60 to 100 tokens of nano's tokenizer, a few system turns that many
rows share. What is measured is seconds, imports of libraries apart, and the peak of resident memory of each process:

    mix         `ramify data mix` of the file and a second one of a hundredth of its rows
    check       `ramify data check FILE model=nano`
    train       `ramify train data.train=FILE model=nano train.max_steps=3`: reading, rendering, three steps
    prepare     the rendering alone, as a dry run does it
    datasets    `load_dataset("json")` and a batched `map` of the chat template and the tokenizer
    trl         what TRL's SFTTrainer does to the rows before it trains, on a model of no size

The last two read fewer rows (`OTHERS`); rows a second are compared, and memory is that of the rows they read. Rows a
second of processor time, of all cores, are shown beside: on a machine that others use they are the steadier figure.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

from benchmarks.setting import Report, Side, emit, machine, peak_memory, run_side, show_table

MODULE = "benchmarks.rows"
OTHERS = {"datasets": 10, "trl": 25}
"""One row in so many is given to the others: they are slower, and nothing they do depends on the number of rows."""
LIBRARIES = {"datasets": ("datasets", "transformers"), "trl": ("datasets", "transformers", "trl")}
SEED = 3
_SYSTEMS = ("", "Be brief.", "You are a careful assistant. Work step by step, and end with the answer.", "Answer.")
_UNITS = ("metres", "grams", "litres", "hours", "miles", "pounds", "minutes", "feet")
_OPENINGS = ("Convert {n} {a} to {b}, please.", "How many {b} are in {n} {a}?", "What is {n} {a} in {b}?")
_MORE = ("And {n} {a}?", "Now the same for {n} {a}.", "What about {n} {a} in {b}?")
_ANSWERS = ("{n} {a} are {m} {b}, since one of them has {k}. The answer is {m}.", "That is {m} {b}.", "{m}")


@dataclass(frozen=True)
class Work:
    """What one process does: a kind (see above), and where the files are."""

    kind: str
    folder: str
    rows: int


def write_rows(path: Path, count: int) -> None:
    """Rows as JSON lines, the same for the same number."""
    draws = random.Random(SEED)
    with path.open("w", encoding="utf-8") as file:
        for number in range(count):
            turns = list(_turns(draws, number))
            file.write(json.dumps({"messages": turns, "topic": _UNITS[number % len(_UNITS)]}) + "\n")


def _turns(draws: random.Random, number: int) -> Iterator[dict[str, str]]:
    system = draws.choice(_SYSTEMS)
    if system:
        yield {"role": "system", "content": system}
    for place in range(draws.choice((1, 1, 2, 2, 3))):
        (first, second), factor = draws.sample(_UNITS, 2), draws.randint(2, 99)
        words = {
            "n": number % 9973 + place,
            "a": first,
            "b": second,
            "k": factor,
            "m": (number % 9973 + place) * factor,
        }
        asked = draws.choice(_MORE if place else _OPENINGS)
        yield {"role": "user", "content": asked.format(**words)}
        yield {"role": "assistant", "content": draws.choice(_ANSWERS).format(**words)}


# --- the sides, each in a process of its own ---------------------------------------------------------------------


def command(*arguments: str) -> None:
    """Our command line, in this process."""
    from ramify.cli.main import app

    app(list(arguments), prog_name="ramify", standalone_mode=False)


def mix(work: Work) -> None:
    """Two sources to a mix of all their rows."""
    folder = Path(work.folder)
    weights = {"rows": 100, "few": 1}
    sources = [{"name": name, "from": str(folder / f"{name}.jsonl"), "weight": each} for name, each in weights.items()]
    settings = {"model": "nano", "sources": sources}
    (folder / "mix.yaml").write_text(json.dumps(settings), encoding="utf-8")  # JSON is YAML
    command("data", "mix", str(folder / "mix.yaml"), "--out", str(folder / "mixed"))


def check(work: Work) -> None:
    """Lengths, repetitions, flaws of the template."""
    command("data", "check", str(Path(work.folder) / "rows.jsonl"), "model=nano")


def train(work: Work) -> None:
    """From the file to three optimizer steps."""
    folder = Path(work.folder)
    rows, out = f"data.train={folder / 'rows.jsonl'}", f"out={folder / 'run'}"
    command("train", "model=nano", rows, out, "train.max_steps=3", "train.tensorboard=false", "train.device=cpu")


def prepare(work: Work) -> None:
    """The rendering alone."""
    from ramify.base.config_file import parse_config
    from ramify.train.dryrun import dry_run

    folder = Path(work.folder)
    data = {"train": str(folder / "rows.jsonl")}
    found = dry_run(parse_config({"model": "nano", "data": data, "out": str(folder / "none")}))
    print(f"{found.rows} rows, {found.tokens} tokens, the longest sequence has {found.longest}", file=sys.stderr)


def datasets(work: Work) -> None:
    """Template and tokenizer over rows, as users of `datasets` write it."""
    from datasets import load_dataset

    tokenizer = _tokenizer()

    def encoded(batch: dict[str, Any]) -> Any:
        texts = tokenizer.apply_chat_template(batch["messages"], tokenize=False)
        return tokenizer(texts, add_special_tokens=False)

    loaded = load_dataset("json", data_files=_fewer(work), split="train", cache_dir=work.folder)
    loaded.map(encoded, batched=True, remove_columns=loaded.column_names)


def trl(work: Work) -> None:
    """Everything that SFTTrainer does before it trains."""
    from datasets import load_dataset
    from transformers import LlamaConfig, LlamaForCausalLM
    from trl import SFTConfig, SFTTrainer

    tokenizer = _tokenizer()
    network = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=len(tokenizer), hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=1
        )
    )
    loaded = load_dataset("json", data_files=_fewer(work), split="train", cache_dir=work.folder)
    settings = SFTConfig(output_dir=work.folder, report_to="none", use_cpu=True, bf16=False)
    SFTTrainer(network, settings, train_dataset=loaded, processing_class=tokenizer)


SIDES: dict[str, Callable[[Work], None]] = {each.__name__: each for each in (mix, check, train, prepare, datasets, trl)}


def _tokenizer() -> Any:
    from transformers import AutoTokenizer

    from ramify import nano

    return AutoTokenizer.from_pretrained(str(nano.path()))


def _fewer(work: Work) -> str:
    """The first rows, as many as that side is given."""
    path = Path(work.folder) / f"{work.kind}.jsonl"
    with (Path(work.folder) / "rows.jsonl").open(encoding="utf-8") as rows, path.open("w", encoding="utf-8") as file:
        file.writelines(line for _, line in zip(range(work.rows), rows, strict=False))
    return str(path)


def measured(work: Work) -> dict[str, Any]:
    """Run one side in this process; the libraries that it needs are imported before the clock starts."""
    os.environ["TOKENIZERS_PARALLELISM"] = "true"  # all sides use all cores
    for name in LIBRARIES.get(work.kind, ("torch", "transformers", "peft")):
        import_module(name)
    began, busy = time.perf_counter(), time.process_time()
    SIDES[work.kind](work)
    seconds, cpu = time.perf_counter() - began, time.process_time() - busy
    return {
        "rows": work.rows,
        "seconds": seconds,
        "rows_per_second": work.rows / seconds,
        "rows_per_cpu_second": work.rows / cpu,
        "memory": peak_memory(),
    }


# --- the comparison ----------------------------------------------------------------------------------------------


def compare(rows: int, folder: Path) -> Report:
    """All sides on one generated file."""
    write_rows(folder / "rows.jsonl", rows)
    write_rows(folder / "few.jsonl", max(1, rows // 100))
    results = {}
    for kind in SIDES:
        print(f"  {kind} …", file=sys.stderr, flush=True)
        work = Work(kind, str(folder), max(1, rows // OTHERS.get(kind, 1)))
        results[kind] = run_side(MODULE, Side(kind, asdict(work)))
    report = Report(machine=machine(), settings={"rows": rows, "seed": SEED})
    for kind, found in results.items():
        (report.peers if kind in OTHERS else report.ours)[kind] = found
    for kind in OTHERS:
        report.ratio[kind] = results["prepare"]["rows_per_second"] / results[kind]["rows_per_second"]
    report.ratio["memory_gib"] = max(each["memory"] for each in report.ours.values()) / 2**30
    return report


def show(report: Report) -> None:
    """The table."""
    columns = ("process", "rows", "seconds", "rows/s", "rows/cpu s", "peak MiB")
    lines = []
    for kind, found in (report.ours | report.peers).items():
        speeds = found["seconds"], found["rows_per_second"], found["rows_per_cpu_second"], found["memory"] / 2**20
        lines.append((kind, f"{found['rows']:,}", *(f"{each:,.0f}" for each in speeds)))
    show_table(f"{report.settings['rows']:,} rows", columns, lines)
    print("  prepare: " + ", ".join(f"{report.ratio[kind]:.1f} x the rows/s of {kind}" for kind in OTHERS))


def main() -> None:
    """Measure, print the table, write the report."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--out", type=Path, help="JSON file for the report")
    parser.add_argument("--rows", type=int, default=1_000_000, help="rows of the file")
    parser.add_argument("--side", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.side:
        emit(measured(Work(**json.loads(asked.side))))
        return
    if asked.rows < 1:
        parser.error(f"--rows {asked.rows}: at least 1 is needed")
    with tempfile.TemporaryDirectory() as folder:
        report = compare(asked.rows, Path(folder))
    show(report)
    if asked.out:
        report.write(asked.out)
        print(f"\nwritten to {asked.out}")


if __name__ == "__main__":
    main()
