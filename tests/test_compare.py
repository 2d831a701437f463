"""Comparisons are read from run folders: arms, seeds, findings, flips, notes, and where everything comes from."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from compare_setup import answers, write_evaluation, write_training
from train_setup import make_config, model_folder, pairs_file

from ramify.base.config import Prompting, RunConfig, Sampling
from ramify.base.config_file import parse_config
from ramify.base.errors import ConfigError, DataError, RunError
from ramify.base.records import read_jsonl, write_json, write_jsonl
from ramify.base.runs import Run, create_run
from ramify.evaluate.compare import facts
from ramify.evaluate.compare.comparison import Comparison, compare_runs
from ramify.evaluate.compare.contrasts import FlipKind
from ramify.evaluate.compare.plain import as_plain
from ramify.evaluate.run import evaluate
from ramify.evaluate.stages import stage
from ramify.evaluate.statistics.findings import Outcome
from ramify.evaluate.statistics.intervals import tango
from ramify.model.files import weight_files
from ramify.train import sft

__all__ = ["model_folder"]

NOT_COVERED = "the variance between seeds is not covered"


def said(comparison: Comparison) -> str:
    """All notes."""
    return " ".join(comparison.notes)


def test_a_clear_gain_is_said_with_its_certainty(tmp_path: Path) -> None:
    base = write_evaluation(tmp_path / "base", answers(100, 500))
    tuned = write_evaluation(tmp_path / "tuned", answers(200, 500, begin=10))
    found = compare_runs([base, tuned])
    assert found.title == "base and tuned compared"
    assert found.main.overall.outcome is Outcome.BETTER
    assert found.main.verdict == "better: +20.0 points, 95 % interval +16.2 to +24.1, n = 500"
    assert compare_runs([tuned, base]).main.verdict.startswith("worse: −20.0 points")


def test_too_few_problems_are_said_with_how_many_it_would_take(tmp_path: Path) -> None:
    base = write_evaluation(tmp_path / "base", answers(10, 25))
    tuned = write_evaluation(tmp_path / "tuned", answers(12, 25, begin=1))
    verdict = compare_runs([base, tuned]).main.verdict
    assert verdict.startswith("no difference can be shown with n = 25: about ")
    assert "would be needed (+8.0 points" in verdict


def test_equal_answers_are_called_neither(tmp_path: Path) -> None:
    folders = [write_evaluation(tmp_path / name, answers(10, 25)) for name in ("a", "b")]
    found = compare_runs(folders).main
    assert found.overall.outcome is Outcome.NOT_SHOWN and found.overall.needed is None
    assert "as many became right as became wrong" in found.verdict
    assert found.flips == ()


def test_prompts_of_an_untrained_model_say_nothing_about_seeds(tmp_path: Path) -> None:
    plain = write_evaluation(tmp_path / "plain", answers(10, 40))
    config = RunConfig(prompt=Prompting(system="Count."), sample=Sampling(max_new_tokens=9))
    told = write_evaluation(tmp_path / "told", answers(30, 40), config=config)
    found = compare_runs([plain, told])
    assert not found.main.seeds_matter and "seed" not in said(found) + found.main.verdict
    assert {(row.scope, row.name, row.values) for row in found.settings} == {
        ("evaluation", "prompt.system", ("", "Count.")),
        ("evaluation", "sample.max_new_tokens", ("128", "9")),
    }
    assert found.trained == ((), ())


def test_one_training_seed_is_said_not_to_cover_others(tmp_path: Path) -> None:
    base = write_evaluation(tmp_path / "base", answers(10, 100))
    tuned = write_training(tmp_path / "tuned", answers(60, 100))
    found = compare_runs([base, tuned])
    assert NOT_COVERED in found.main.verdict and "The variance between training seeds is not covered" in said(found)
    assert not found.main.across_seeds
    [training] = found.trained[1]
    assert (training.rows, training.steps, training.tokens, training.trained_tokens) == (12, 7, 900, 350.0)


def test_the_same_training_in_two_ways_says_nothing_about_seeds(tmp_path: Path) -> None:
    tuned = write_training(tmp_path / "tuned", answers(20, 60))
    config = RunConfig(model=str(tuned), prompt=Prompting(system="Count."))
    again = write_evaluation(tmp_path / "elsewhere", answers(50, 60), config=config)
    assert stage(again).training == tuned
    found = compare_runs([tuned, again])
    assert not found.main.seeds_matter and "seed" not in said(found)


def test_an_export_is_known_by_the_run_it_was_made_of(tmp_path: Path) -> None:
    tuned = write_training(tmp_path / "tuned", answers(20, 60))
    write_json(tmp_path / "export" / "export.json", {"source": str(tuned)})
    config = RunConfig(engine="llamacpp", model=str(tmp_path / "export" / "tuned-Q8_0.gguf"))
    exported = write_evaluation(tmp_path / "q8", answers(21, 60), config=config)
    assert stage(exported).training == tuned
    assert not compare_runs([tuned, exported]).main.seeds_matter


def noisy(right: int, n: int, seed: int) -> list[str]:
    """About `right` of `n` right: a few are not those that other seeds get."""
    draws = np.random.default_rng(seed)
    return ["r" if (i < right) != (draws.random() < 0.03) else "w" for i in range(n)]


def test_trainings_that_differ_in_their_seed_alone_are_one_arm(tmp_path: Path) -> None:
    base = write_evaluation(tmp_path / "base", answers(40, 300))
    runs = [write_training(tmp_path / f"sft-seed{s}", noisy(140, 300, s), seed=s) for s in (1, 2, 3)]
    found = compare_runs([base, *runs])
    assert [arm.name for arm in found.arms] == ["base", "sft (3 seeds)"]
    assert found.arms[1].seeds == 3 and len(found.trained[1]) == 3
    assert found.main.across_seeds and NOT_COVERED not in found.main.verdict
    assert "sft-seed1, sft-seed2, sft-seed3 differ in their training seed alone" in said(found)
    assert found.main.overall.outcome is Outcome.BETTER
    means = [stage(run).scores.accuracy.value for run in runs]
    assert found.main.overall.paired.difference == pytest.approx(np.mean(means) - 40 / 300)
    assert found.arms[1].scores.accuracy.value == pytest.approx(np.mean(means))
    assert "Intervals of a single rate, and those of pass@k, cover the problems alone" in said(found)
    apart = compare_runs([base, *runs], each=True)
    assert len(apart.arms) == 4 and not any(each.across_seeds for each in apart.contrasts)


def test_the_same_trainings_in_two_ways_pair_in_whatever_order_they_are_named(tmp_path: Path) -> None:
    runs = [write_training(tmp_path / f"s{seed}", noisy(140, 300, seed), seed=seed) for seed in (1, 2)]
    told = Prompting(system="Count.")
    again = [
        write_evaluation(
            tmp_path / f"again{seed}",
            noisy(140, 300, seed),
            config=RunConfig(model=str(run), prompt=told, seed=seed),
        )
        for seed, run in zip((1, 2), runs, strict=True)
    ]
    named = compare_runs([*runs, *reversed(again)]).main
    assert not named.seeds_matter and (named.overall.paired.fixed, named.overall.paired.broken) == (0, 0)
    assert named.overall.paired == compare_runs([*runs, *again]).main.overall.paired


def test_seeds_that_disagree_show_less_than_one_seed_would(tmp_path: Path) -> None:
    base = write_evaluation(tmp_path / "base", answers(100, 300))
    rights = {1: 160, 2: 105, 3: 95}
    runs = [write_training(tmp_path / f"s{seed}", answers(right, 300), seed=seed) for seed, right in rights.items()]
    assert compare_runs([base, runs[0]]).main.overall.outcome is Outcome.BETTER
    together = compare_runs([base, *runs]).main
    assert together.overall.outcome is Outcome.NOT_SHOWN
    assert "more training seeds would be needed" in together.verdict


def test_other_settings_or_the_same_seed_twice_are_other_arms(tmp_path: Path) -> None:
    base = write_evaluation(tmp_path / "base", answers(40, 100))
    one = write_training(tmp_path / "one", answers(60, 100), seed=1)
    again = write_training(tmp_path / "again", answers(61, 100), seed=1)
    fast = write_training(tmp_path / "fast", answers(62, 100), seed=2, lr=1e-2)
    found = compare_runs([base, one, again, fast])
    assert [arm.seeds for arm in found.arms] == [1, 1, 1, 1]
    assert ("train.lr", ("", "0.001", "0.001", "0.01")) in {(row.name, row.values) for row in found.settings}


def test_seeds_of_two_stages_are_seen_through_their_parents(tmp_path: Path) -> None:
    base = write_evaluation(tmp_path / "base", answers(40, 100))
    seconds = []
    for seed in (1, 2):
        first = write_training(tmp_path / f"first{seed}", answers(50, 100), seed=seed)
        config = RunConfig(seed=seed, adapter=str(first))
        second = create_run(tmp_path / f"second{seed}", config, parents=(str(first),)).folder
        write_evaluation(second / "eval", answers(60 + seed, 100), config=RunConfig(model=str(second), seed=seed))
        seconds.append(second)
    found = compare_runs([base, *seconds])
    assert [arm.seeds for arm in found.arms] == [1, 2]
    assert [parent.folder for parent in found.trained[1][0].parents] == [tmp_path / "first1"]


def test_a_damaged_record_is_an_error_with_its_file(tmp_path: Path) -> None:
    base = write_evaluation(tmp_path / "base", answers(4, 10))
    tuned = write_training(tmp_path / "tuned", answers(6, 10))
    (tuned / "run.json").write_text("{", encoding="utf-8")
    with pytest.raises(RunError, match=r"tuned/run\.json: cannot be read"):
        compare_runs([base, tuned])


def test_lineage_ends_where_a_run_is_gone_or_stands_on_itself(tmp_path: Path) -> None:
    base = write_evaluation(tmp_path / "base", answers(4, 10))
    tuned = write_training(tmp_path / "tuned", answers(6, 10))
    Run(tuned).update(parents=[str(tuned), str(tmp_path / "gone")])
    [training] = compare_runs([base, tuned]).trained[1]
    assert training.parents == () and training.gone == (str(tmp_path / "gone"),)


def test_settings_that_a_method_does_not_read_are_no_difference(tmp_path: Path) -> None:
    runs = []
    for name, method in (("a", "sft"), ("b", "sft"), ("c", "rft"), ("d", "dpo")):
        tuned = write_training(tmp_path / name, answers(6, 10))
        settings = Run(tuned).record["config"] | {"method": method}
        for section, changed in (("dpo", "beta"), ("sample", "top_p"), ("select", "tolerance"), ("evaluate", "limit")):
            settings[section] = settings[section] | {changed: 0.5 + ord(name) / 1000}
        Run(tuned).update(config=settings)
        runs.append(tuned)
    plain = compare_runs(runs[:2], each=True).settings
    assert [row.name for row in plain if row.scope == "training"] == []
    found = {row.name: row.values for row in compare_runs(runs).settings if row.scope == "training"}
    assert found["method"] == ("sft", "sft", "rft", "dpo")
    assert found["dpo.beta"] == ("", "", "", "0.6")
    assert found["sample.top_p"] == ("", "", "0.599", "") == found["select.tolerance"]
    assert "evaluate.limit" not in found


def test_other_rows_or_another_seed_of_the_task_are_another_arm(tmp_path: Path) -> None:
    base = write_evaluation(tmp_path / "base", answers(40, 100))
    one, two, three = (write_training(tmp_path / f"s{seed}", answers(60, 100), seed=seed) for seed in (1, 2, 3))
    assert [arm.seeds for arm in compare_runs([base, one, two, three]).arms] == [1, 3]
    Run(two).update(hashes={"data.train": "changed since"})
    settings = Run(three).record["config"]
    Run(three).update(config=settings | {"task": settings["task"] | {"seed": 9}})
    assert [arm.seeds for arm in compare_runs([base, one, two, three]).arms] == [1, 1, 1, 1]


def test_arms_of_several_seeds_have_names_of_their_own(tmp_path: Path) -> None:
    base = write_evaluation(tmp_path / "base", answers(40, 100))
    runs = [
        write_training(tmp_path / f"r{rank}-{seed}", answers(60, 100), seed=seed, lr=1 / rank)
        for rank in (4, 16)
        for seed in (1, 2)
    ]
    assert [arm.name for arm in compare_runs([base, *runs]).arms] == ["base", "r4 (2 seeds)", "r16 (2 seeds)"]
    same = [
        write_training(tmp_path / f"x{i}", answers(60, 100), seed=seed, lr=lr)
        for i, (lr, seed) in enumerate([(1e-3, 1), (1e-3, 2), (1e-2, 1), (1e-2, 2)])
    ]
    found = compare_runs([base, *same])
    assert [arm.name for arm in found.arms] == ["base", "x0, x1", "x2, x3"]
    assert len(facts.overall(found.contrasts).rows) == 3


def test_one_evaluation_is_not_compared_with_itself(tmp_path: Path) -> None:
    tuned = write_training(tmp_path / "tuned", answers(6, 10))
    with pytest.raises(ConfigError, match="tuned and eval are one evaluation"):
        compare_runs([tuned, tuned / "eval"])


def test_any_two_that_are_held_against_each_other_need_the_same_questions(tmp_path: Path) -> None:
    """The first has none of the problem on which the other two differ."""
    first = write_evaluation(tmp_path / "first", answers(3, 5))
    second, third = (write_evaluation(tmp_path / name, answers(3, 6)) for name in ("second", "third"))
    rows = [row for _, row in read_jsonl(third / "problems.jsonl")]
    rows[5]["answer"] = 17.0
    write_jsonl(third / "problems.jsonl", rows)
    with pytest.raises(DataError, match=r"'p5' of .*second is another question in .*third"):
        compare_runs([first, second, third])


def test_lengths_that_an_engine_did_not_tell_are_not_compared(tmp_path: Path) -> None:
    silent = write_evaluation(tmp_path / "silent", answers(3, 5), tokens=0)
    found = compare_runs([silent, write_evaluation(tmp_path / "told", answers(3, 5), tokens=7)])
    assert found.main.length is None
    assert list(facts.change_table(found.contrasts).rows[0][3:]) == ["–", "–"]
    assert as_plain(found)["contrasts"][0]["length"] is None


def test_categories_are_a_family_of_their_own(tmp_path: Path) -> None:
    before = answers(30, 120)
    after = ["r" if i % 3 == 0 or letter == "r" else "w" for i, letter in enumerate(before)]
    a = write_evaluation(tmp_path / "a", before, categories=3)
    b = write_evaluation(tmp_path / "b", after, categories=3)
    found = compare_runs([a, b])
    assert list(found.main.categories) == ["kind 0", "kind 1", "kind 2"]
    outcomes = [each.outcome for each in found.main.categories.values()]
    assert outcomes == [Outcome.BETTER, Outcome.NOT_SHOWN, Outcome.NOT_SHOWN]
    assert {each.tests for each in found.main.categories.values()} == {3}
    assert sum(each.paired.n for each in found.main.categories.values()) == 120
    assert "corrected over the categories" in said(found)


def test_one_category_is_none(tmp_path: Path) -> None:
    folders = [write_evaluation(tmp_path / name, answers(10, 20), categories=1) for name in ("a", "b")]
    assert compare_runs(folders).main.categories == {}


def test_several_contrasts_are_corrected_together(tmp_path: Path) -> None:
    base = write_evaluation(tmp_path / "base", answers(100, 300))
    near = write_evaluation(tmp_path / "near", answers(108, 300, begin=2))
    far = write_evaluation(tmp_path / "far", answers(180, 300))
    alone, three = compare_runs([base, near]), compare_runs([base, near, far])
    assert alone.main.overall.outcome is Outcome.NOT_SHOWN or alone.main.overall.tests == 1
    assert [each.overall.tests for each in three.contrasts] == [3, 3, 3]
    first = three.contrasts[0].overall
    assert first.p_adjusted >= first.paired.p
    assert "3 comparisons are made" in said(three)
    assert three.main.before.name == "base" and three.main.after.name == "far"


def test_format_failures_are_apart_from_wrong_answers(tmp_path: Path) -> None:
    silent = write_evaluation(tmp_path / "silent", answers(40, 100, other="n"))
    wrong = write_evaluation(tmp_path / "wrong", answers(40, 100, other="w"))
    found = compare_runs([silent, wrong]).main
    assert found.overall.paired.difference == 0
    assert found.answered.outcome is Outcome.BETTER and found.answered.paired.fixed == 60
    before, after = found.right_when_answered
    assert (before.value, after.value) == (1.0, 0.4)


def test_stops_and_lengths_are_compared(tmp_path: Path) -> None:
    cut = write_evaluation(tmp_path / "cut", answers(40, 100, other="t"), tokens=9)
    short = write_evaluation(tmp_path / "short", answers(40, 100), tokens=3)
    found = compare_runs([cut, short]).main
    assert found.ended.outcome is Outcome.BETTER and found.ended.paired.fixed == 60
    assert found.length is not None and (found.length.before, found.length.after) == (9.0, 3.0)
    assert (found.length.paired.difference, found.length.paired.low, found.length.paired.high) == (-6.0, -6.0, -6.0)
    assert found.length.paired.p < 1e-9


def test_flips_hold_both_answers(tmp_path: Path) -> None:
    a = write_evaluation(tmp_path / "a", ["r", "r", "w", "w", "e"])
    b = write_evaluation(tmp_path / "b", ["r", "w", "r", "n", "r"])
    found = compare_runs([a, b]).main
    assert [(flip.problem.id, flip.kind) for flip in found.flips] == [
        ("p1", FlipKind.BROKEN),
        ("p2", FlipKind.FIXED),
    ]
    assert (found.fixed[0].before.text, found.fixed[0].after.text) == ("not 2.0", "2.0")
    assert found.broken[0].after_verdict.reason.value == "wrong"
    assert found.overall.paired.left_out == 1


def test_right_at_least_once_in_k(tmp_path: Path) -> None:
    a = write_evaluation(tmp_path / "a", ["rwww", "wwww", "rrww", "wwww"] * 15)
    b = write_evaluation(tmp_path / "b", ["rrrw", "rwww", "rrrr", "wwww"] * 15)
    found = compare_runs([a, b]).main
    assert list(found.pass_at_k) == [2, 4]
    four = found.pass_at_k[4]
    assert (four.before, four.after) == (0.5, 0.75)
    assert 0 < four.low < 0.25 < four.high < 0.5
    assert found.overall.outcome is Outcome.BETTER


def test_right_at_least_once_is_compared_on_the_problems_that_both_have(tmp_path: Path) -> None:
    a = write_evaluation(tmp_path / "a", ["rw", "ww"] * 20)
    b = write_evaluation(tmp_path / "b", ["rr", "ee"] * 20)
    found = compare_runs([a, b]).main.pass_at_k[2]
    assert (found.before, found.after, found.low, found.high) == (1.0, 1.0, *tango(0, 0, 20))
    gone = write_evaluation(tmp_path / "gone", ["ee", "rw"] * 20)
    assert compare_runs([b, gone]).main.pass_at_k == {}


def test_what_cannot_be_compared_is_refused(tmp_path: Path) -> None:
    a = write_evaluation(tmp_path / "a", answers(3, 5))
    other = write_evaluation(tmp_path / "other", answers(3, 5))
    rows = [row for _, row in read_jsonl(other / "problems.jsonl")]
    write_jsonl(other / "problems.jsonl", [{**row, "rules": [{"contains": "egg"}]} for row in rows])
    with pytest.raises(DataError, match="another question"):
        compare_runs([a, other])
    write_jsonl(other / "problems.jsonl", [{**row, "id": f"q{row['id']}"} for row in rows])
    with pytest.raises(DataError, match="no problem in common"):
        compare_runs([a, other])
    with pytest.raises(ConfigError, match="two runs are needed"):
        compare_runs([a])


def test_what_never_changed_has_an_interval_with_a_width(tmp_path: Path) -> None:
    """No difference in 30 problems is no proof of none, whether there are several samples or several seeds."""
    low, high = tango(0, 0, 30)
    half = [write_evaluation(tmp_path / name, ["rw", "rr", "ww"] * 10) for name in ("a", "b")]
    found = compare_runs(half).main
    assert (found.overall.paired.low, found.overall.paired.high) == (low, high) and found.overall.paired.p == 1
    base = write_evaluation(tmp_path / "base", answers(15, 30))
    runs = [write_training(tmp_path / f"s{seed}", answers(15, 30), seed=seed) for seed in (1, 2, 3)]
    seeds = compare_runs([base, *runs]).main
    assert seeds.across_seeds and (seeds.overall.paired.low, seeds.answered.paired.high) == (low, high)
    assert low < -0.05 and high > 0.05


def test_seeds_alone_are_no_comparison(tmp_path: Path) -> None:
    runs = [write_training(tmp_path / f"s{seed}", answers(5, 10), seed=seed) for seed in (1, 2)]
    with pytest.raises(ConfigError, match="differ in their training seed alone"):
        compare_runs(runs)


def test_everything_is_written_as_json(tmp_path: Path) -> None:
    a = write_evaluation(tmp_path / "a", ["rw", "ww", "rr", "ew"] * 6, categories=2)
    b = write_training(tmp_path / "b", ["r", "r", "w", "r"] * 6)
    found = compare_runs([a, b])
    plain = json.loads(json.dumps(as_plain(found), allow_nan=False))
    [contrast] = plain["contrasts"]
    assert contrast["verdict"] == found.main.verdict
    assert contrast["overall"]["paired"]["n"] == found.main.overall.paired.n
    assert contrast["overall"]["outcome"] == found.main.overall.outcome.value
    assert len(contrast["flips"]) == len(found.main.flips)
    assert plain["arms"][1]["trained"][0]["rows"] == 12
    assert plain["arms"][0]["forms"] == {"right": 18, "wrong": 24, "no answer": 0, "cut off": 0}
    assert plain["notes"] == list(found.notes)


def test_weights_that_are_others_since_the_evaluation_are_told(model_folder: Path, tmp_path: Path) -> None:
    asked = pairs_file(tmp_path / "asked.json", rows=4)
    shutil.copytree(model_folder, tmp_path / "here" / "model")
    for name, told in (("plain", None), ("told", "Count.")):
        settings = {
            "model": str(tmp_path / "here" / "model"),
            "prompt": {"chat_template": "plain", "system": told},
            "sample": {"max_new_tokens": 2},
            "evaluate": {"problems": str(asked)},
            "out": str(tmp_path / "here" / name),
        }
        evaluate(parse_config(settings))
    shutil.move(tmp_path / "here", tmp_path / "there")
    runs = [tmp_path / "there" / name for name in ("plain", "told")]
    assert "no longer those" not in said(compare_runs(runs))
    weights = tmp_path / "there" / "model" / "model.safetensors"
    with weights.open("r+b") as file:
        file.seek(-4, 2)
        file.write(b"\x01\x02\x03\x04")
    assert said(compare_runs(runs)).count("the weights there are no longer those that were evaluated") == 2
    weights.unlink()
    assert "no longer those" not in said(compare_runs(runs))


def test_files_of_weights_are_those_that_are_loaded(
    model_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And nothing about them ends an evaluation."""
    model = tmp_path / "model"
    shutil.copytree(model_folder, model)
    (model / "pytorch_model.bin").symlink_to(tmp_path / "gone")
    (model / "optimizer.pt").write_bytes(b"of a training")
    (model / "gone.safetensors").symlink_to(tmp_path / "gone")
    assert [file.name for file in weight_files(str(model))] == ["model.safetensors"]
    first = sft.run(make_config(model, pairs_file(tmp_path / "t.json"), tmp_path / "run", train={"max_steps": 1}))
    both = [tmp_path / "model" / "model.safetensors", first.folder / "adapter" / "adapter_model.safetensors"]
    assert list(weight_files(str(first.folder))) == both == list(weight_files(str(model), str(first.folder)))
    monkeypatch.chdir(tmp_path)
    shutil.copytree(model_folder, "nano")
    assert not weight_files("nano") and not weight_files("owner/model")
