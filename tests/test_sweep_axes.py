"""What a sweep varies: values, ranges, combinations; and what is refused before a run starts."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from ramify.base.errors import ConfigError
from ramify.plan.sweep.axes import Axis, Drawing, combinations, parse_axis, split_values
from ramify.plan.sweep.runs import folder_name, plan_sweep

TRAIN = "data.train=task"


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("4,16,64", ["4", "16", "64"]),
        ("[q_proj,v_proj],all-linear", ["[q_proj,v_proj]", "all-linear"]),
        ("'a,b',c", ["'a,b'", "c"]),
        ("{a: [1,2], b: (3,4)}, x", ["{a: [1,2], b: (3,4)}", "x"]),
        ('"it\'s, so",1', ['"it\'s, so"', "1"]),
        ("one", ["one"]),
        ("", [""]),
        ("a,", ["a", ""]),
    ],
)
def test_commas_inside_brackets_and_quotes_separate_nothing(text: str, values: list[str]) -> None:
    assert list(split_values(text)) == values


def test_a_grid_is_every_combination_the_last_axis_changing_fastest_and_seeds_together() -> None:
    axes = [parse_axis(each) for each in ("seed=1,2", "lora.r=4,16", "train.lr=1e-4,5e-4")]
    found = combinations(axes, None)
    assert len(found) == 8
    assert found[:3] == [
        (("lora.r", "4"), ("train.lr", "1e-4"), ("seed", "1")),
        (("lora.r", "4"), ("train.lr", "1e-4"), ("seed", "2")),
        (("lora.r", "4"), ("train.lr", "5e-4"), ("seed", "1")),
    ]
    assert len(set(found)) == 8


def test_a_random_sweep_draws_by_the_logarithm_and_a_longer_one_begins_with_a_shorter_one() -> None:
    axes = [parse_axis(each) for each in ("train.lr=1e-6..1e-2", "lora.r=1..64", "train.schedule=cosine,linear")]
    few, many = combinations(axes, Drawing(20, seed=3)), combinations(axes, Drawing(400, seed=3))
    assert many[:20] == few
    assert few != combinations(axes, Drawing(20, seed=4))
    assert len(set(many)) == 400
    rates = [float(dict(each)["train.lr"]) for each in many]
    assert 1e-6 <= min(rates) < 1e-5 and 1e-3 < max(rates) <= 1e-2
    tenths = [math.floor(math.log10(rate)) for rate in rates]
    for power in (-6, -5, -4, -3):  # a quarter of the draws each; 400 of them lie within four deviations
        assert 65 <= tenths.count(power) <= 135
    ranks = [int(dict(each)["lora.r"]) for each in many]
    assert min(ranks) == 1 and max(ranks) > 50
    assert 0.35 < sum(rank <= 4 for rank in ranks) / 400 < 0.6  # log(9) of log(129) is 0.45
    assert {dict(each)["train.schedule"] for each in many} == {"cosine", "linear"}


def test_repetitions_are_made_of_each_draw() -> None:
    axes = [parse_axis(each) for each in ("train.lr=1e-5..1e-3", "seed=1,2,3")]
    found = combinations(axes, Drawing(2))
    assert [dict(each)["seed"] for each in found] == ["1", "2", "3"] * 2
    assert len({dict(each)["train.lr"] for each in found}) == 2


def test_all_combinations_can_be_drawn_and_no_more() -> None:
    axes = [parse_axis("lora.r=1..3"), parse_axis("train.lr=1e-3,1e-4")]
    assert len(set(combinations(axes, Drawing(6)))) == 6
    with pytest.raises(ConfigError, match="only 6 combinations"):
        combinations(axes, Drawing(7))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["lora.r"], "not of the form"),
        (["=4,5"], "not of the form"),
        (["lora.r=4,,5"], "a value is empty"),
        (["lora.r=4,5,4"], "the value 4 is given twice"),
        (["lora.r=4,8", "lora.r=16"], "lora.r is given twice"),
        (["train.lr=1e-5..1e-3"], "a range is no list of values"),
        (["train.lr=1e-3..1e-5"], "to a larger one"),
        (["train.lr=0..1"], "above 0"),
        (["lora.r=4"], "nothing is varied"),
        (["lora.rank=4,8"], "unknown setting 'lora.rank'"),
        (["lora.r=4,many"], "lora.r = 'many'"),
        (["train.lr=1e-4,0.0001"], "are the same run"),
        (["task.tolerance=0.1,0.2"], "decides what is measured"),
        (["evaluate.limit=10,20"], "decides what is measured"),
        (["evaluate={limit: 10},{limit: 20}"], "evaluate decides what is measured"),
        (["sample.max_new_tokens=10,20"], "sample.max_new_tokens decides what is measured"),
        (["method=sft", "dpo.beta=0.1,0.2"], "beta0.1 and beta0.2 are the same run"),
        (["train.lr=1e-5..1e999"], "to a larger one"),
        (["out=a,b"], "a folder of its own"),
        (["method=sft,ppo"], "method = 'ppo'"),
    ],
)
def test_what_cannot_be_swept_is_refused_before_a_run_starts(words: list[str], message: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=message):
        plan_sweep(None, [TRAIN, *words], tmp_path)
    assert not list(tmp_path.iterdir())


def test_what_a_method_reads_can_be_swept(tmp_path: Path) -> None:
    """How many samples rejection sampling draws is a setting of training: an evaluation draws one greedily."""
    words = ["method=rft", "sample.temperature=0.7", "sample.n=2,4", "select.strategy=first_correct,distinct"]
    assert len(plan_sweep(None, [TRAIN, *words], tmp_path)) == 4
    assert len(plan_sweep(None, [TRAIN, "method=dpo", "dpo.beta=0.1,0.2"], tmp_path)) == 2


def test_without_rows_nothing_is_planned(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"data\.train is not set"):
        plan_sweep(None, ["lora.r=4,8"], tmp_path)


def test_a_range_of_seeds_is_refused_even_at_random(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="seed: a range"):
        plan_sweep(None, [TRAIN, "seed=1..5", "lora.r=4,8"], tmp_path, Drawing(2))


def test_every_run_has_its_settings_and_a_folder_named_after_them(tmp_path: Path) -> None:
    runs = plan_sweep(None, [TRAIN, "train.epochs=2", "lora.r=4,16", "train.lr=1e-4", "seed=1,2"], tmp_path)
    assert [run.name for run in runs] == ["r4-seed1", "r4-seed2", "r16-seed1", "r16-seed2"]
    assert [(run.config.lora.r, run.config.seed) for run in runs if run.config.lora] == [
        (4, 1),
        (4, 2),
        (16, 1),
        (16, 2),
    ]
    assert {run.config.train.epochs for run in runs} == {2}
    assert runs[0].folder == tmp_path / "r4-seed1"
    assert [run.label for run in runs] == ["lora.r=4", "lora.r=4", "lora.r=16", "lora.r=16"]


def test_folder_names_stay_apart_and_short() -> None:
    assert folder_name({"train.lr": "1e-4", "lora.r": "4"}) == "lr1e-4-r4"
    files = [folder_name({"data.train": value}) for value in ("a/rows.json", "a_rows.json")]
    assert len(set(files)) == 2 and not any("/" in each for each in files)
    assert folder_name({"prompt.system": "x" * 300}).startswith("systemx")
    assert len(folder_name({"prompt.system": "x" * 300})) < 100
    twins = folder_name({"a.limit": "1", "b.limit": "2"})
    assert twins != folder_name({"b.limit": "1", "a.limit": "2"})
    assert folder_name({"": "sweep"}) != "sweep"


def test_axes_that_vary() -> None:
    assert not Axis("a", ("1",)).varies
    assert parse_axis("a=1,2").varies and parse_axis("a=1..2").varies
    assert not parse_axis("prompt.system=from 1..2 on").varies
