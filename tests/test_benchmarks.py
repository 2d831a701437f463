from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks import batches, dpo, dpo_sides, pairs, rubric, sampling, setting, sft
from benchmarks.products import Products, StepWatch
from ramify import nano
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


def sft_run(speed: float, memory: float, losses: list[float], dtype: str = "fp32") -> dict[str, Any]:
    return {
        "work": {"dtype": dtype},
        "tokens_per_second": speed,
        "tokens_per_cpu_second": speed / 2,
        "memory": memory,
        "losses": losses,
        "products": {"operations": {"float32": 1.0}, "attention_calls": {}},
        "operations_per_token": 1e9,
    }


def test_training_ratios_are_ours_over_the_peers() -> None:
    report = setting.Report(machine={"gflops": {"fp32": {"600": 100.0, "1100": 200.0}, "bf16": {"600": 400.0}}})
    results = {
        "ours": [sft_run(speed, 300.0, [2.0, 1.0]) for speed in (90.0, 100.0, 500.0)],
        "trl": [sft_run(speed, 1000.0, [2.0, 1.25]) for speed in (24.0, 25.0, 26.0)],
        "trl_default": [sft_run(speed, 2000.0, [9.0, 9.0]) for speed in (9.0, 10.0, 30.0)],
    }
    for prefix in ("", "system_"):
        sft.add_ratios(report, prefix, results)
    expected = {
        "trl": 4.0,  # medians: 100 over 25
        "trl_default": 10.0,
        "memory": 0.3,
        "loss_difference": 0.25,
        "share_of_fp32_rate": 0.5,  # 100 tokens/s of 1 GFLOP each, over the best rate of 200
        "share_of_bf16_rate": 0.25,
    }
    assert report.ratio == pytest.approx({f"{prefix}{k}": v for prefix in ("", "system_") for k, v in expected.items()})
    assert report.ours["tokens_per_second"] == {"median": 100.0, "low": 90.0, "high": 500.0}
    assert report.peers["trl"]["system_memory"] == 1000.0


def sampling_runs(*speeds: float, memory: int = 1, sequences: int = 16) -> list[dict[str, Any]]:
    return [
        {"tokens_per_second": speed, "memory": memory, "products": "fp32", "sequences": sequences} for speed in speeds
    ]


def test_sampling_ratios_are_ours_over_the_peers_and_the_lower_length_counts() -> None:
    report = setting.Report()
    for new, ours in ((40, 1000.0), (150, 600.0)):
        results = {
            "ours": sampling_runs(ours - 1, ours, 9 * ours, sequences=128),
            "generate": sampling_runs(49.0, 50.0, 51.0),
            "generate_prefix_cache": sampling_runs(100.0 if new == 40 else 20.0),
        }
        sampling.add(report, new, results)
    sampling.add_lowest(report, (40, 150))
    assert report.ratio == {
        "generate_40": 20.0,
        "generate_150": 12.0,
        "generate_prefix_cache_40": 10.0,
        "generate_prefix_cache_150": 30.0,
        "generate": 12.0,
        "generate_prefix_cache": 10.0,
    }
    assert report.ours["batch_40"] == 128 and report.peers["generate"]["batch_150"] == 16
    assert report.ours["tokens_per_second_40"] == {"median": 1000.0, "low": 999.0, "high": 9000.0}


def test_the_best_batches_are_those_of_prompt_and_step_together() -> None:
    """8 at a time: 1 s for the prompt and 0.1 s a step; 16: 2 s and 0.15 s; 32: 4 s and 0.4 s."""
    exact = {8: (1.0, 0.1), 16: (2.0, 0.15), 32: (4.0, 0.4)}
    timings = {
        size: {"first": [first], "more": [first + batches.PROBE_TOKENS * step]} for size, (first, step) in exact.items()
    }
    for new in (1, 40, 150):
        expected = {size: size * new / (first + (new - 1) * step) for size, (first, step) in exact.items()}
        assert batches.speeds(timings, new) == pytest.approx(expected)
        assert batches.best_batches(timings, new)[0] == max(expected, key=lambda size: expected[size])
    assert batches.best_batches(timings, 150) == [16]  # 98 tokens/s; 8 reaches 75
    assert batches.best_batches(timings, 1) == [8, 16]  # as fast as each other
    assert batches.best_batches({8: timings[8]}, 40) == [8]
    assert batches.pays({8: timings[8]}, 40) and batches.pays({8: timings[8], 16: timings[16]}, 40)
    assert not batches.pays(timings, 150)


def test_a_disturbed_timing_chooses_no_batch() -> None:
    """A slow `first` would make a step look free; a slow `more` would make it look dear."""
    calm = {
        8: {"first": [1.0, 1.1, 1.0], "more": [2.6, 2.7, 2.6]},
        16: {"first": [2.0, 2.1, 2.2], "more": [4.4, 4.5, 4.4]},
        32: {"first": [6.0, 6.1, 6.2], "more": [20.4, 20.5, 20.4]},
    }
    chosen = batches.best_batches(calm, 150)
    assert chosen == [16]
    disturbed = {size: {name: [50.0, *values] for name, values in each.items()} for size, each in calm.items()}
    assert batches.best_batches(disturbed, 150) == chosen
    slow_first = {**calm, 32: {"first": [20.5], "more": [20.4]}}  # every timing of it was disturbed
    assert batches.speeds(slow_first, 150)[32] == pytest.approx(32 * 150 / (20.5 + 149 * 0.1))  # not: a free step


def test_timings_are_repeated_after_one_that_warms_up(monkeypatch: pytest.MonkeyPatch) -> None:
    def seconds(*taken: float) -> list[float]:
        left = iter(taken)
        monkeypatch.setattr(batches, "timed", lambda task: (next(left), None))
        return batches.repeated(lambda: None)

    assert seconds(9.0, 1.0, 1.2, 1.1, 7.0) == [1.0, 1.2, 1.1]
    assert seconds(14.0, 8.0, 9.0, 8.5) == [8.0, 9.0]  # enough: the fourth would cost more than it tells
    assert seconds(16.0, 1.0) == [16.0]


def test_the_faster_size_counts_for_each_way_of_generating(monkeypatch: pytest.MonkeyPatch) -> None:
    made_up = {"ours": 90.0, "generate at 8": 5.0, "generate at 16": 4.0}
    made_up |= {"generate_prefix_cache at 8": 6.0, "generate_prefix_cache at 16": 7.0}
    asked: list[tuple[str, int]] = []

    def run_side(module: str, side: setting.Side) -> dict[str, Any]:
        work = sampling.Work(**side.spec)
        asked.append((side.name, work.batch))
        name = work.kind if work.kind == "ours" else f"{work.kind} at {work.batch}"
        return sampling_runs(made_up[name], sequences=work.batch)[0]

    monkeypatch.setattr(setting, "run_side", run_side)
    report = setting.Report()
    results = sampling.take_turns(sampling.Work("ours"), ["ours"], [16, 8], 3, report)
    assert {name: {each["sequences"] for each in runs} for name, runs in results.items() if name != "ours"} == {
        "generate": {8},
        "generate_prefix_cache": {16},
    }
    assert all(len(runs) == 3 for runs in results.values()) and len(asked) == 5 + 2 * 3
    assert report.peers["tried"]["40"]["generate at 16"] == 4.0
    assert all(len(runs) == 1 for runs in sampling.take_turns(sampling.Work("ours"), ["ours"], [8], 1, report).values())


def labs_file(folder: Path, programs: int = 3) -> Path:
    """Labs of real programs in small: one problem, programs that begin alike."""
    statement = "/*\nWrite a C program that prints a number.\n*/\nint main() {}"
    submissions = [
        {"id": str(number), "code": f'/*numPass=1 of 4*/\n#include <stdio.h>\nint main() {{ printf("{number}\\n"); }}'}
        for number in range(programs)
    ]
    lab = {"lab": "Lab-1", "problem": "7", "reference_with_statement": statement, "submissions": submissions}
    path = folder / "labs.jsonl"
    path.write_text(json.dumps(lab) + "\n", encoding="utf-8")
    return path


def test_a_student_has_twelve_pairs_that_share_statement_and_code(tmp_path: Path) -> None:
    first, second, third = rubric.students(labs_file(tmp_path))
    assert len(first) == len(second) == len(third) == pairs.PAIRS_OF_A_STUDENT
    for at, criterion in zip(range(0, 12, 3), rubric.RUBRIC, strict=True):
        group = first[at : at + 3]
        assert len({pair.prompt for pair in group}) == len({pair.chosen for pair in group}) == 1
        answers = {json.loads(text)["answer"][3:] for pair in group for text in (pair.chosen, pair.rejected)}
        assert answers == set(criterion.ratings) and criterion.title in group[0].prompt
        assert all(f"{answer}\n" in group[0].prompt for answer in answers)
    shared = '\nWrite a C program that prints a number.\n\nCode:\n#include <stdio.h>\nint main() { printf("'
    assert all(pair.prompt.startswith(f"Context:{shared}") for pair in (*first, *second, *third))
    assert not any("numPass" in pair.prompt for pair in first)
    assert next(rubric.students(labs_file(tmp_path))) == first


def test_rubric_pairs_are_tokenised_into_the_vocabulary(tmp_path: Path) -> None:
    steps = pairs.rubric_pairs(1, 2, labs_file(tmp_path), nano.path())
    assert [len(step) for step in steps] == [24]
    for pair in steps[0]:
        assert pair.chosen[-1] == pair.rejected[-1] == pairs.EOS
        assert all(2 <= token < setting.VOCABULARY for token in (*pair.prompt, *pair.chosen[:-1], *pair.rejected[:-1]))
    unshared, tree = pairs.shared_tokens(steps[0])
    assert unshared == sum(pair.tokens for pair in steps[0]) > 4 * tree
    with pytest.raises(SystemExit, match="4 students are needed, found 3"):
        pairs.rubric_pairs(2, 2, labs_file(tmp_path), nano.path())


@pytest.mark.parametrize("completions", dpo_sides.COMPLETIONS)
def test_a_step_has_eight_pairs_however_many_completions_a_prompt_has(completions: int) -> None:
    steps = pairs.long_prompts(2, 8, completions)
    assert [len(step) for step in steps] == [8, 8]
    for step in steps:
        assert len({pair.prompt for pair in step}) == 16 // completions
        assert {len(pair.prompt) for pair in step} == {800}
        sides = [side for pair in step for side in pairs.sides(pair)]
        assert {len(side) for side in sides} == {40} and len(set(sides)) == 16
    assert len({pair.prompt for step in steps for pair in step}) == 2 * 16 // completions
    unshared, tree = pairs.shared_tokens(steps[0])
    assert (unshared, tree) == (16 * 840, 16 // completions * 800 + 16 * 40)


def test_the_loop_sees_the_pairs_in_their_order() -> None:
    steps = pairs.long_prompts(4, 4, 4)
    settings = Train(max_steps=4, batch_size=4)
    data = dpo_sides.in_order(steps, settings)
    schedule = Schedule.of(data.groups, settings, pairs.SEED)
    for number, step in enumerate(steps):
        seen = [(data.chosen_sequence(place), data.rejected_sequence(place)) for place in schedule.indices(number)]
        assert [chosen.ids for chosen, _ in seen] == [pair.prompt + pair.chosen for pair in step]
        assert [rejected.ids for _, rejected in seen] == [pair.prompt + pair.rejected for pair in step]
        assert all(side.trained == 40 for sides in seen for side in sides)
    assert len(data.prompts) == 8


def test_trl_reads_the_ids_from_a_text_of_ids() -> None:
    (pair,) = pairs.long_prompts(1, 1, 2)[0]
    row, words = dpo_sides.as_text(pair), dpo_sides.tokenizer()
    assert tuple(words(row["prompt"])["input_ids"]) == pair.prompt
    for name, side in (("chosen", pair.chosen), ("rejected", pair.rejected)):
        ids = words(row["prompt"] + row[name] + words.eos_token)["input_ids"]  # TRL adds eos
        assert tuple(ids) == pair.prompt + side
    dpo_sides.refuse_other_ids(
        [{"prompt_ids": pair.prompt, "chosen_ids": pair.chosen, "rejected_ids": pair.rejected}], [pair]
    )
    with pytest.raises(SystemExit, match="to other ids"):
        dpo_sides.refuse_other_ids(
            [{"prompt_ids": (), "chosen_ids": pair.chosen, "rejected_ids": pair.rejected}], [pair]
        )


def test_trl_computes_an_even_split_of_a_step_and_its_padding() -> None:
    best, default = dpo_sides.Work("trl", at_once=5), dpo_sides.Work("trl_default")
    assert [dpo_sides.pairs_at_once(best, size) for size in (8, 12, 3)] == [4, 4, 3]
    assert [dpo_sides.pairs_at_once(default, size) for size in (8, 12, 7)] == [8, 6, 7]
    step = [pairs.Ids((5, 6), (7, 0), (8, 9, 0)), pairs.Ids((5,), (7, 0), (8, 0))]
    assert dpo_sides.trl_tokens([step], at_once=1) == 2 * 5 + 2 * 3
    assert dpo_sides.trl_tokens([step], at_once=2) == 4 * 5


def test_the_first_step_counts_only_where_it_is_long(monkeypatch: pytest.MonkeyPatch) -> None:
    def watched(*ticks: float) -> dpo_sides.Watch:
        left = iter(ticks)
        monkeypatch.setattr(dpo_sides.time, "perf_counter", lambda: next(left))
        watch = dpo_sides.Watch()
        watch.begin()
        torch.ones(2, 2) @ torch.ones(2, 2)
        for _ in ticks[1:]:
            watch.done()
            torch.ones(2, 2) @ torch.ones(2, 2)
        return watch

    watch = watched(0.0, 9.0, 10.0, 12.0)
    assert (watch.seconds, watch.timed, watch.enough) == ([9.0, 1.0, 2.0], [1.0, 2.0], False)
    assert watch.products.summary()["operations"] == {"float32": 16.0}  # of the first step alone
    assert not watched(0.0, dpo_sides.PATIENCE).enough
    long = watched(0.0, 2 * dpo_sides.PATIENCE)
    assert long.enough and long.timed == [2 * dpo_sides.PATIENCE]


def test_every_side_draws_the_same_adapter() -> None:
    from peft import get_peft_model

    first, second = (get_peft_model(setting.random_model("tiny", "fp32"), setting.lora_settings()) for _ in range(2))
    for network in (first, second):
        dpo_sides.draw_adapter(network)
    drawn = [
        torch.equal(a, b)
        for (name, a), b in zip(first.named_parameters(), second.parameters(), strict=True)
        if "lora" in name
    ]
    assert len(drawn) == 2 * 7 * 2 and all(drawn)


def dpo_run(seconds: float, memory: float, losses: list[float], computed: int) -> dict[str, Any]:
    return {
        "seconds_per_pair": seconds,
        "reference_seconds_per_pair": seconds / 4,
        "memory": memory,
        "losses": losses,
        "tokens": 1000,
        "computed_tokens": computed,
        "products": {"operations": {"float32": 1.0}, "attention_calls": {}},
    }


def test_preference_ratios_are_the_peers_seconds_over_ours_and_the_larger_memory_counts() -> None:
    report = setting.Report()
    for name, factor in (("long_prompt", 1.0), ("rubric", 2.0)):
        results = {
            "ours": [dpo_run(seconds, 300.0 * factor, [0.7, 0.6], 100) for seconds in (0.9, 1.0, 7.0)],
            "trl": [dpo_run(8.0 * factor, 1000.0, [0.7], 1000)],  # stopped after its first step
        }
        if name == "long_prompt":
            results["trl_default"] = [dpo_run(20.0, 900.0, [0.7, 0.5], 1000)]
        dpo.add_ratios(report, name, results)
    assert report.ratio == pytest.approx(
        {
            "tokens_long_prompt": 10.0,
            "tokens_rubric": 10.0,
            "trl_long_prompt": 8.0,
            "trl_long_prompt_default": 20.0,
            "trl_rubric": 16.0,
            "memory_long_prompt": 0.3,
            "memory_rubric": 0.6,
            "memory": 0.6,
            "loss_difference_long_prompt": 0.0,
            "loss_difference_rubric": 0.0,
        }
    )
    assert report.ours["rubric_seconds_per_pair"] == {"median": 1.0, "low": 0.9, "high": 7.0}
    assert report.peers["trl"]["long_prompt_losses"] == [0.7]


def test_a_peer_that_fails_is_named_and_ours_ends_the_benchmark(monkeypatch: pytest.MonkeyPatch) -> None:
    def run_side(module: str, side: setting.Side) -> dict[str, Any]:
        if side.spec["fails"]:
            raise SystemExit(f"{side.name} took too long")
        return {"name": side.name}

    monkeypatch.setattr(setting, "run_side", run_side)
    sides = [setting.Side("ours", {"fails": False}), setting.Side("trl", {"fails": True})]
    failed: dict[str, str] = {}
    assert setting.alternate("", sides, 2, failed) == {"ours": [{"name": "ours"}] * 2}
    assert failed == {"trl": "trl took too long"}
    with pytest.raises(SystemExit, match="took too long"):
        setting.alternate("", sides, 2)
    with pytest.raises(SystemExit, match="took too long"):
        setting.alternate("", sides[::-1], 2, {})


@pytest.mark.parametrize(
    ("module", "options"), [("sampling", ["--rounds", "0"]), ("sft", ["--steps", "3"]), ("dpo", ["--steps", "1"])]
)
def test_too_little_to_measure_is_refused(module: str, options: list[str], root: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", f"benchmarks.{module}", *options], cwd=root, capture_output=True, text=True, check=False
    )
    assert done.returncode == 2 and "at least" in done.stderr


def measured(module: str, out: Path, root: Path, *options: str) -> dict[str, Any]:
    """The report of a benchmark on a tiny shape."""
    command = [sys.executable, "-m", f"benchmarks.{module}", "--shape", "tiny", *options, "--out", str(out)]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    report: dict[str, Any] = json.loads(out.read_text(encoding="utf-8"))
    assert {"ratio", "ours", "peers"} <= set(report)
    assert all(isinstance(value, float) and value >= 0 for value in report["ratio"].values())
    return report


@pytest.mark.proof
@pytest.mark.parametrize("options", [["--quick", "--dtype", "best"], ["--rounds", "1", "--new", "3", "5"]])
def test_sampling_is_measured_against_its_peers(options: list[str], root: Path, tmp_path: Path) -> None:
    report = measured("sampling", tmp_path / "sampling.json", root, *options)
    lengths = (3, 5) if "--new" in options else (40,)
    peers = {"generate", "generate_prefix_cache"} | ({"continuous_batching"} - set(report["peers"].get("failed", {})))
    assert set(report["ratio"]) == peers | {f"{peer}_{new}" for peer in peers for new in lengths}
    assert report["ratio"]["generate"] == min(report["ratio"][f"generate_{new}"] for new in lengths)
    assert set(report["peers"]["tried"]) == {str(new) for new in lengths}
    assert {f"tokens_per_second_{new}" for new in lengths} <= set(report["ours"])


@pytest.mark.proof
def test_both_sides_train_alike(root: Path, tmp_path: Path) -> None:
    """The whole benchmark on a tiny shape: same data, adapter and learning rate, so the same losses."""
    pytest.importorskip("trl", reason="make bench-deps installs it")
    report = measured("sft", tmp_path / "sft.json", root, "--quick", "--dtype", "fp32")
    row = {"trl", "trl_default", "memory", "loss_difference", "share_of_fp32_rate", "share_of_bf16_rate"}
    turns = {"turns_tokens", "turns_loss_difference"}
    assert set(report["ratio"]) == row | {f"system_{name}" for name in row} | turns
    assert report["ratio"]["turns_tokens"] > 1.2 and report["ratio"]["turns_loss_difference"] < 1e-5
    assert set(report["peers"]) == {"trl", "trl_default"}
    assert {"tokens_per_second", "system_tokens_per_second", "memory", "losses"} <= set(report["ours"])
    assert report["ratio"]["loss_difference"] < 1e-3
    assert report["ratio"]["system_loss_difference"] < 1e-3


@pytest.mark.proof
def test_both_sides_prefer_alike(root: Path, tmp_path: Path) -> None:
    """The whole benchmark on a tiny shape: same pairs, adapter, reference and learning rate, so the same losses."""
    pytest.importorskip("trl", reason="make bench-deps installs it")
    options = ["--quick", "--dtype", "fp32", "--pairs", "2", "--data", str(labs_file(tmp_path))]
    report = measured("dpo", tmp_path / "dpo.json", root, *options, "--tokenizer", str(nano.path()))
    rows = ("long_prompt", "rubric")
    assert set(report["ratio"]) == {"memory", "trl_long_prompt_default"} | {
        f"{kind}_{row}" for kind in ("trl", "tokens", "memory", "loss_difference") for row in rows
    }
    assert all(report["ratio"][f"loss_difference_{row}"] < 1e-3 for row in rows)
    assert len(report["ours"]["rubric_losses"]) == 2
    assert report["ratio"]["tokens_long_prompt"] == pytest.approx(4 * 840 / (800 + 4 * 40))
    assert report["ratio"]["tokens_rubric"] > 3
    assert list(report["ours"]["seconds_per_pair_by_completions"]) == ["2", "4"]
    assert not any(report["peers"]["failed"].values())
