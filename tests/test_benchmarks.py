from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from benchmarks import setting, sft
from benchmarks.products import Products, StepWatch
from ramify.base.config import Train
from ramify.train.schedule import Schedule


def test_rows_have_the_lengths_the_benchmark_states() -> None:
    rows = sft.make_rows(steps=20, system=0)
    assert len(rows) == 20 * sft.BATCH
    assert all(30 <= row.prompt <= 120 for row in rows)
    assert all(5 <= len(row.ids) - row.prompt <= 120 for row in rows)
    assert len({row.ids[:8] for row in rows}) == len(rows)  # nothing is shared
    lengths = [len(row.ids) for row in rows]
    steps = [lengths[start : start + sft.BATCH] for start in range(0, len(rows), sft.BATCH)]
    assert sum(max(step) - min(step) for step in steps) <= max(lengths) - min(lengths)  # sorted by length


def test_a_system_turn_is_put_before_the_same_sequences() -> None:
    plain, shared = sft.make_rows(3, 0), sft.make_rows(3, 100)
    assert len({row.ids[:100] for row in shared}) == 1
    assert len(shared) == len(plain)
    assert all(130 <= row.prompt <= 220 for row in shared)


def test_the_loop_sees_the_rows_in_their_order() -> None:
    rows = sft.make_rows(6, 10)
    settings = Train(max_steps=6, batch_size=sft.BATCH)
    data = sft.in_order(rows, settings)
    schedule = Schedule.of(data.groups, settings, sft.SEED)
    seen = [data.sequences[index] for step in range(6) for index in schedule.indices(step)]
    assert [sequence.ids for sequence in seen] == [row.ids for row in rows]
    assert [sequence.trained for sequence in seen] == [len(row.ids) - row.prompt for row in rows]


def test_products_are_counted_forward_and_backward() -> None:
    layer = torch.nn.Linear(8, 16)
    x = torch.randn(4, 8, requires_grad=True)
    with Products() as counted:
        layer(x).sum().backward()
    assert counted.summary()["operations"] == {"float32": 3 * 2.0 * 4 * 8 * 16}  # forward, input and weight gradient
    with Products() as counted, torch.no_grad():
        torch.bmm(torch.zeros(3, 4, 5, dtype=torch.bfloat16), torch.zeros(3, 5, 6, dtype=torch.bfloat16))
        torch.zeros(4, 6).addmm_(torch.zeros(4, 5), torch.zeros(5, 6))
    assert counted.summary()["operations"] == {"bfloat16": 2.0 * 3 * 4 * 5 * 6, "float32": 2.0 * 4 * 5 * 6}


def test_a_watch_times_all_steps_but_the_last_which_it_counts() -> None:
    ticks, cpu_ticks = iter([0.0, 1.0, 3.0]), iter([0.0, 2.0, 6.0])
    watch = StepWatch(3, lambda: next(ticks), lambda: next(cpu_ticks))
    for step in range(4):
        watch.done(step)
        torch.ones(2, 2) @ torch.ones(2, 2)
    assert watch.seconds == [1.0, 2.0]
    assert watch.cpu_seconds == [2.0, 4.0]
    assert watch.products.summary()["operations"] == {"float32": 16.0}


def test_medians_and_ranges() -> None:
    assert setting.Spread.of([3.0, 1.0, 2.0]) == setting.Spread(2.0, 1.0, 3.0)
    seen = sft.best_rates([{"rates": {"fp32": {"600": 2.0}}}], {"fp32": {"600": 3.0}})
    assert seen == {"fp32": {"600": 3.0}}


def test_random_models_are_the_same_on_every_side() -> None:
    first, second = (setting.random_model("tiny", "fp32") for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))


@pytest.mark.proof
def test_both_sides_train_alike(tmp_path: Path) -> None:
    """The whole benchmark on a tiny shape: same data, adapter and learning rate, so the same losses."""
    pytest.importorskip("trl")
    out = tmp_path / "sft.json"
    command = [
        sys.executable,
        "-m",
        "benchmarks.sft",
        "--shape",
        "tiny",
        "--quick",
        "--dtype",
        "fp32",
        "--out",
        str(out),
    ]
    root = Path(__file__).resolve().parent.parent
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    report = json.loads(out.read_text(encoding="utf-8"))
    assert {"trl", "trl_default", "memory", "system_trl"} <= set(report["ratio"])
    assert report["ratio"]["loss_difference"] < 1e-3
    assert report["ratio"]["system_loss_difference"] < 1e-3
