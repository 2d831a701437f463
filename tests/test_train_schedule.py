"""The schedule is a function of the step: every row once an epoch, groups together, rates as published."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import get_cosine_schedule_with_warmup, get_linear_schedule_with_warmup

from ramify.base.config import Train
from ramify.train.schedule import Schedule


def schedule(rows: int = 10, seed: int = 0, **settings: object) -> Schedule:
    return Schedule.of([(n,) for n in range(rows)], Train.model_validate(settings), seed)


@given(sizes=st.lists(st.integers(1, 4), min_size=1, max_size=20), batch=st.integers(1, 9), seed=st.integers(0, 99))
def test_every_epoch_has_every_row_once_and_groups_stay_together(sizes: list[int], batch: int, seed: int) -> None:
    groups, start = [], 0
    for size in sizes:
        groups.append(tuple(range(start, start + size)))
        start += size
    plan = Schedule.of(groups, Train(batch_size=batch, epochs=2), seed)
    assert plan.total == 2 * plan.per_epoch
    for epoch in range(2):
        steps = [plan.indices(epoch * plan.per_epoch + place) for place in range(plan.per_epoch)]
        order = [index for step in steps for index in step]
        assert sorted(order) == list(range(start))
        assert all(len(step) == batch for step in steps[:-1]) and steps[-1]
        for group in groups:
            first = order.index(group[0])
            assert tuple(order[first : first + len(group)]) == group


def test_order_depends_on_seed_and_epoch_alone() -> None:
    plan = schedule(rows=50, batch_size=50, epochs=2)
    assert plan.indices(0) == schedule(rows=50, batch_size=50, epochs=9, lr=0.5).indices(0)
    assert plan.indices(0) != plan.indices(1)
    assert plan.indices(0) != schedule(rows=50, seed=1, batch_size=50).indices(0)


@pytest.mark.parametrize(
    ("settings", "total"),
    [({"epochs": 2}, 6), ({"epochs": 0.5}, 2), ({"epochs": 0.1}, 1), ({"epochs": 1.5}, 5), ({"max_steps": 7}, 7)],
)
def test_steps_of_a_run(settings: dict[str, float], total: int) -> None:
    assert schedule(rows=10, batch_size=4, **settings).total == total


@pytest.mark.parametrize("shape", ["linear", "cosine", "constant"])
@pytest.mark.parametrize("warmup", [0, 4, 0.25])
def test_rates_warm_up_to_the_peak_and_fall(shape: str, warmup: float) -> None:
    plan = schedule(rows=20, batch_size=1, epochs=1, lr=2.0, schedule=shape, warmup=warmup)
    rates = [plan.rate(step) for step in range(plan.total)]
    start = plan.warmup
    assert start == {0: 0, 4: 4, 0.25: 5}[warmup]
    assert rates[start] == 2.0 == max(rates)
    assert all(rate > 0 for rate in rates)
    assert rates[: start + 1] == sorted(rates[: start + 1])
    assert rates[start:] == sorted(rates[start:], reverse=True)
    assert (shape == "constant") == (rates[-1] == 2.0)


@pytest.mark.parametrize("shape", ["linear", "cosine"])
def test_rates_after_warm_up_are_those_of_transformers(shape: str) -> None:
    plan = schedule(rows=30, batch_size=1, epochs=1, lr=1.0, schedule=shape, warmup=6)
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    make = get_linear_schedule_with_warmup if shape == "linear" else get_cosine_schedule_with_warmup
    reference = make(optimizer, 6, 30)
    theirs = []
    for _ in range(30):
        theirs.append(reference.get_last_lr()[0])
        optimizer.step()
        reference.step()
    assert [plan.rate(step) for step in range(6, 30)] == pytest.approx(theirs[6:])


def test_short_runs_are_said() -> None:
    assert "never reaches 0.001" in str(schedule(rows=10, batch_size=4, epochs=1, warmup=100).warning())
    assert "2 of 3 steps are warm-up" in str(schedule(rows=10, batch_size=4, epochs=1, warmup=2).warning())
    assert "only 3 steps" in str(schedule(rows=10, batch_size=4, epochs=1, warmup=0).warning())
    assert schedule(rows=100, batch_size=4, epochs=1).warning() is None
