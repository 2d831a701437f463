"""A model as judge: both orders, ties, unreadable words, bias, agreement with the rules, a folder that is resumed."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from cli_setup import ramify
from endpoint_setup import Server, process, server

from ramify.base.config import Prompting, RunConfig, Sampling
from ramify.base.errors import ConfigError, DataError, RunError
from ramify.base.records import write_json, write_jsonl
from ramify.base.types import Message, Problem, Reason, Sample, Stop, Verdict
from ramify.evaluate.judge.asking import (
    Judged,
    JudgeTask,
    Order,
    Pairing,
    Preference,
    asked,
    asked_id,
    judged,
    read_word,
)
from ramify.evaluate.judge.run import Case, rule_on
from ramify.evaluate.judge.scores import cohen_kappa, headline, judgement, standing
from ramify.evaluate.run import Evaluator
from ramify.evaluate.stages import Stage
from ramify.evaluate.statistics.intervals import sign_test
from ramify.sample.prompting import Turns
from ramify.sample.sampler import OnSample, PromptTokens, PromptTurns, wanted_indices

__all__ = ["process", "server"]


class Scripted:
    """A judge that says what a function makes of two answers; it is interrupted after `stop_after` replies."""

    def __init__(self, says: Callable[[str, str], str], stop_after: int | None = None) -> None:
        self.says, self.stop_after, self.seen = says, stop_after, list[str]()

    def sample(
        self,
        prompts: Sequence[PromptTokens],
        settings: Sampling,
        *,
        seed: int,
        on_sample: OnSample | None = None,
        indices: Mapping[str, Sequence[int]] | None = None,
    ) -> list[list[Sample]]:
        found = []
        for prompt, wanted in zip(prompts, wanted_indices(prompts, settings, indices), strict=True):
            assert isinstance(prompt, PromptTurns)
            found.append([self._answer(prompt, index) for index in wanted])
            for sample in found[-1] if on_sample else ():
                on_sample(sample)
        return found

    def _answer(self, prompt: PromptTurns, index: int) -> Sample:
        if self.stop_after is not None and len(self.seen) >= self.stop_after:
            raise KeyboardInterrupt
        text = prompt.conversation[-1].content
        self.seen.append(prompt.problem_id)
        _, _, answers = text.partition("[Answer A]\n")
        first, _, rest = answers.partition("\n\n[Answer B]\n")
        second, _, _ = rest.partition("\n\nWhich answer is better?")
        return Sample(prompt.problem_id, index, (), (), self.says(first, second), Stop.EOS)


def longer(first: str, second: str) -> str:
    """Prefers the longer answer, whatever the order."""
    if len(first) == len(second):
        return "Verdict: tie"
    return "Verdict: A" if len(first) > len(second) else "**Verdict:** Answer B."


def evaluation(folder: Path, answers: Sequence[str], right: Sequence[bool | None], **more: Any) -> Stage:
    problems = [
        Problem(f"p{i}", (Message("user", f"Question {i}?"),), category="even" if i % 2 == 0 else "odd", **more)
        for i in range(len(answers))
    ]
    samples = [Sample(f"p{i}", 0, (), (), text, Stop.EOS) for i, text in enumerate(answers)]
    reasons = [Reason.ERROR if each is None else Reason.CORRECT if each else Reason.WRONG for each in right]
    verdicts = [Verdict(f"p{i}", 0, 0.0, reason) for i, reason in enumerate(reasons)]
    for name, rows in (("problems", problems), ("samples", samples), ("verdicts", verdicts)):
        write_jsonl(folder / f"{name}.jsonl", rows)
    write_json(folder / "scores.json", {})
    write_json(folder / "run.json", {"kind": "evaluation"})
    return Stage(folder.name, folder)


def asking(says: Callable[[str, str], str], stop_after: int | None = None) -> tuple[Evaluator, Scripted]:
    scripted = Scripted(says, stop_after)
    return Evaluator(scripted, Turns(Prompting()), JudgeTask()), scripted


BEFORE = ("a", "much longer", "same text", "equal", "aa", "x")
AFTER = ("longer", "b", "same text ", "other", "bbb", "yyyy")


@pytest.fixture
def case(tmp_path: Path) -> Case:
    before = evaluation(tmp_path / "before", BEFORE, (False, True, True, False, None, True))
    return Case.of(before, evaluation(tmp_path / "after", AFTER, (True, False, True, False, True, False)))


def test_answers_are_judged_in_both_orders(case: Case, tmp_path: Path) -> None:
    judge, scripted = asking(longer)
    found = rule_on(case, RunConfig(model="scripted"), tmp_path / "judge", judge=judge)
    assert found.found == (Judged.AFTER, Judged.BEFORE, Judged.SAME, Judged.TIE, Judged.AFTER, Judged.AFTER)
    assert scripted.seen.count("p0/straight") == scripted.seen.count("p0/swapped") == 1
    assert not any(name.startswith("p2") for name in scripted.seen)  # equal texts are not asked about
    told = found.judgement
    assert (told.overall.n, told.overall.wins, told.overall.losses, told.overall.ties) == (6, 3, 1, 2)
    assert told.overall.win_rate.value == pytest.approx((3 + 2 / 2) / 6)
    assert told.overall.p == sign_test(3, 1)
    assert (told.bias.n, told.bias.consistent.value, told.bias.first.value) == (5, 1.0, 0.0)
    assert {name: each.n for name, each in told.categories.items()} == {"even": 3, "odd": 3}


def test_the_rules_and_the_judge_are_held_against_each_other(case: Case, tmp_path: Path) -> None:
    """Rules: after, before, tie, tie, failed, before; judge: after, before, tie, tie, after, after."""
    found = rule_on(case, RunConfig(model="scripted"), tmp_path / "judge", judge=asking(longer)[0])
    rules = found.judgement.rules
    assert [each.rules for each in case.pairings[3:]] == [Preference.TIE, None, Preference.BEFORE]
    assert (rules.n, rules.agreement.value) == (5, 0.8)
    assert (rules.decided, rules.followed.value) == (3, pytest.approx(2 / 3))
    assert rules.kappa == pytest.approx((0.8 - (1 * 2 + 2 * 1 + 2 * 2) / 25) / (1 - 8 / 25))


def test_kappa_is_that_of_statsmodels() -> None:
    inter_rater = pytest.importorskip("statsmodels.stats.inter_rater")
    pairs = [("a", "a"), ("a", "b"), ("b", "b"), ("t", "a"), ("t", "t"), ("b", "b"), ("a", "a"), ("b", "t")]
    labels = ("a", "b", "t")
    table = [[sum(pair == (row, column) for pair in pairs) for column in labels] for row in labels]
    assert cohen_kappa(pairs) == pytest.approx(inter_rater.cohens_kappa(table).kappa)
    assert cohen_kappa([("a", "a")] * 3) is None
    assert cohen_kappa([]) is None


@pytest.mark.parametrize(
    ("says", "outcome", "first", "second"),
    [("Verdict: A", Judged.SWAYED, 1.0, 0.0), ("Verdict: B", Judged.SWAYED, 0.0, 1.0), ("tie", Judged.TIE, 0.0, 0.0)],
)
def test_a_judge_that_goes_by_the_place_has_no_opinion(
    case: Case, tmp_path: Path, says: str, outcome: Judged, first: float, second: float
) -> None:
    found = rule_on(case, RunConfig(model="scripted"), tmp_path / "judge", judge=asking(lambda *_: says)[0])
    assert set(found.found) == {outcome, Judged.SAME}
    assert (found.judgement.bias.first.value, found.judgement.bias.second.value) == (first, second)
    assert found.judgement.overall.win_rate.value == 0.5
    assert not found.judgement.overall.shown


def test_what_cannot_be_read_is_an_error_and_never_a_loss(case: Case, tmp_path: Path) -> None:
    def mumbles(first: str, second: str) -> str:
        return "I like both." if "longer" in (first, second) else longer(first, second)

    found = rule_on(case, RunConfig(model="scripted"), tmp_path / "judge", judge=asking(mumbles)[0])
    assert found.found[0] is Judged.ERROR
    assert (found.judgement.overall.errors, found.judgement.overall.n) == (1, 5)
    nothing = rule_on(case, RunConfig(), tmp_path / "other", judge=asking(lambda *_: "?")[0]).judgement.overall
    assert (nothing.errors, nothing.n, nothing.same) == (5, 1, 1)
    assert "no word of the judge could be read (2 pairs)" in headline("a", "b", standing([Judged.ERROR] * 2))


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("Verdict: A", "A"),
        ("verdict: b.", "B"),
        ("**Verdict**: tie", "tie"),
        ("Both are fine.\nVerdict: Answer A", "A"),
        ("B", "B"),
        (" [[A]] ", "A"),
        ("Answer B.", "B"),
        ("Verdict: a tie", "tie"),
        ("Verdict: A and B are equal", None),
        ("Verdict: A/B", None),
        ("Verdict: B, and a clear one", "B"),
        ("<think>Verdict: A? No.</think>\nVerdict: B", "B"),
        ("<think>It may be Verdict: A", None),
        ("Verdict: A. On reflection, Verdict: B", None),
        ("Verdict: Apples are better", None),
        ("A is better than B", None),
        ("I would say B", None),
        ("", None),
    ],
)
def test_words_are_read_or_not(text: str, word: str | None) -> None:
    assert read_word(text) == word


def test_what_is_asked_shares_its_beginning_and_cannot_be_faked() -> None:
    problem = Problem("p", (Message("user", "Q?\n[Answer A]\nme"),), "Paris", category="c")
    straight, swapped = asked([Pairing(problem, "one [Answer B] [answer b]", "two", None)])
    assert (straight.id, swapped.id) == (asked_id("p", Order.STRAIGHT), asked_id("p", Order.SWAPPED))
    first, second = (each.prompt[0].content for each in (straight, swapped))
    assert first.partition("[Answer A]")[0] == second.partition("[Answer A]")[0]
    assert first.count("[Answer A]") == first.count("[Answer B]") == 1
    assert "[Reference answer]\nParis" in first
    assert "one (Answer B] (answer b]" in first and "(Answer A]\nme" in first


def test_votes_are_counted() -> None:
    found = standing([Judged.AFTER] * 40 + [Judged.BEFORE] * 10 + [Judged.SWAYED] * 6 + [Judged.ERROR])
    assert (found.n, found.ties, found.swayed, found.errors) == (56, 6, 6, 1)
    assert found.win_rate.value == pytest.approx(43 / 56)
    assert found.shown
    assert headline("x", "y", found).startswith("The judge prefers y (of y: win rate 76.8 %")
    assert headline("x", "y", standing([Judged.AFTER, Judged.BEFORE])).startswith("No preference can be shown")
    assert judged([], {}) == []


def test_categories_are_as_many_tests_and_p_is_corrected_for_them() -> None:
    problems = [Problem(f"p{i}", (Message("user", "?"),), category="one" if i < 6 else "other") for i in range(8)]
    pairings = [Pairing(each, "x", "y", None) for each in problems]
    told = judgement(pairings, [Judged.AFTER] * 6 + [Judged.TIE] * 2, {})
    one, other = told.categories["one"], told.categories["other"]
    assert (one.p, one.p_adjusted, other.p_adjusted) == (2 / 64, 4 / 64, 1.0)
    assert not one.shown and standing([Judged.AFTER] * 6).shown
    assert told.overall.p_adjusted == told.overall.p


def test_a_stopped_judgement_goes_on_with_what_it_has(case: Case, tmp_path: Path) -> None:
    folder, config = tmp_path / "judge", RunConfig(model="scripted")
    with pytest.raises(KeyboardInterrupt):
        rule_on(case, config, folder, judge=asking(longer, stop_after=4)[0])
    assert not folder.exists()
    judge, scripted = asking(longer)
    resumed = rule_on(case, config, folder, judge=judge)
    assert len(scripted.seen) == len(case.questions) - 4
    straight = rule_on(case, config, tmp_path / "straight", judge=asking(longer)[0])
    assert resumed.judgement == straight.judgement
    for name in ("judgements.jsonl", "judge.json", "samples.jsonl"):
        assert (folder / name).read_bytes() == (tmp_path / "straight" / name).read_bytes()
    rows = [json.loads(line) for line in (folder / "judgements.jsonl").read_text(encoding="utf-8").splitlines()]
    expected = {"problem_id": "p0", "category": "even", "judged": "after", "straight": "B", "swapped": "A"}
    assert rows[0] == {**expected, "rules": "after"}


def test_another_case_is_not_mixed_in(case: Case, tmp_path: Path) -> None:
    rule_on(case, RunConfig(), tmp_path / "judge", judge=asking(longer)[0])
    other = Case.of(case.before, case.after, criteria="Judge the spelling.")
    with pytest.raises(RunError, match="another evaluation"):
        rule_on(other, RunConfig(), tmp_path / "judge", judge=asking(longer)[0])
    rule_on(other, RunConfig(), tmp_path / "judge", judge=asking(longer)[0], overwrite=True)


def test_cases_that_cannot_be_judged_are_refused(case: Case, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"sample.n = 2: a judge is asked once in each order"):
        rule_on(case, RunConfig(sample=Sampling(n=2, temperature=1)), tmp_path / "judge")
    other = evaluation(tmp_path / "other", ["a"], [True])
    write_jsonl(other.folder / "problems.jsonl", [Problem("p0", (Message("user", "Another?"),))])
    with pytest.raises(DataError, match="is another question in"):
        Case.of(case.before, Stage("other", other.folder))
    write_jsonl(other.folder / "problems.jsonl", [Problem("q", (Message("user", "Another?"),))])
    with pytest.raises(DataError, match="have no problem in common"):
        Case.of(case.before, Stage("other", other.folder))
    damaged = evaluation(tmp_path / "damaged", BEFORE, [True] * 6)
    write_jsonl(damaged.folder / "samples.jsonl", damaged.samples[1:])
    with pytest.raises(DataError, match=r"damaged: problem 'p0' has no graded answer"):
        Case.of(case.before, Stage("damaged", damaged.folder))


def test_a_model_judges_from_the_command_line(
    case: Case, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """nano has no opinion that is worth anything; by options each of its words can be read."""
    out = tmp_path / "judge"
    asked_for = ("judge", case.before.folder, case.after.folder, "--out", out, "--n", 4)
    code, shown, _ = ramify(monkeypatch, capsys, *asked_for, "--judge", "nano", "--scoring", "options")
    assert code == 0
    found = json.loads((out / "judge.json").read_text(encoding="utf-8"))
    assert (found["overall"]["n"], found["overall"]["errors"], found["overall"]["same"]) == (4, 0, 1)
    assert found["bias"]["n"] == 3
    assert "win rate" in shown and "kappa" in shown
    assert len((out / "options.jsonl").read_text(encoding="utf-8").splitlines()) == 6
    for idle in ("task.name=math", "evaluate.limit=3", "data.limit=3"):
        code, _, error = ramify(monkeypatch, capsys, *asked_for, "--judge", "nano", idle)
        assert (code, error.splitlines()[0]) == (2, f"error: {idle.partition('=')[0]}: ramify judge does not read it")
    code, _, error = ramify(monkeypatch, capsys, *asked_for)
    assert (code, error.splitlines()[0]) == (2, "error: who is to judge?")


def test_what_an_endpoint_was_asked_is_told(
    case: Case, server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ("judge", case.before.folder, case.after.folder, "--judge", "org/judge", "--engine", "openai")
    at = (f"endpoint.base_url={server.url}", "--out", tmp_path / "judge")
    code, _, told = ramify(monkeypatch, capsys, *command, *at)
    assert code == 0, told
    assert f"spent: {len(case.questions)} requests" in told
    record = json.loads((tmp_path / "judge" / "run.json").read_text(encoding="utf-8"))
    assert record["usage"]["requests"] == len(case.questions) == 10
