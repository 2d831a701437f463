"""Selection is a pure function: who is chosen, who is refused and why, and the account adds up."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ramify.base.config import Select
from ramify.base.errors import ConfigError
from ramify.base.types import Lineage, Message, Problem, Reason, Sample, Stop, Verdict
from ramify.train.select import Graded, Selection, select


def problem(name: str) -> Problem:
    return Problem(name, (Message("user", f"Question {name}?"),), answer=6.0, source=f"file:{name}")


def graded(
    name: str,
    index: int,
    text: str = "so <answer>6</answer>",
    reason: Reason = Reason.CORRECT,
    *,
    stop: Stop = Stop.EOS,
    notes: tuple[str, ...] = (),
) -> Graded:
    sample = Sample(name, index, (1, 2), (-0.1, -0.2), text, stop, policy="tiny", seed=7)
    return Graded(sample, Verdict(name, index, float(reason is Reason.CORRECT), reason, 6.0, notes))


def choose(found: Sequence[Graded], names: str = "a", n: int = 10, **settings: object) -> Selection:
    by_problem = {name: [each for each in found if each.sample.problem_id == name] for name in names}
    return select([problem(name) for name in names], by_problem, Select.model_validate(settings), n)


def texts(selection: Selection) -> list[str]:
    return [row.completions[0].text for row in selection.rows]


def test_first_correct_by_index_whatever_the_order_of_finishing() -> None:
    found = [graded("a", 2, "two"), graded("a", 1, "one"), graded("a", 0, "no", Reason.WRONG)]
    selection = choose(found)
    assert texts(selection) == ["one"]
    assert selection.account.refused == {"wrong": 1, "surplus": 1}


def test_distinct_takes_different_chains_up_to_its_number() -> None:
    found = [graded("a", index, text) for index, text in enumerate(["x y", "X  y ", "z", "w", "v"])]
    selection = choose(found, strategy="distinct", per_problem=3)
    assert texts(selection) == ["x y", "z", "w"]
    assert selection.account.refused == {"duplicate": 1, "surplus": 1}


def test_a_tolerance_of_selection_refuses_what_the_task_forgives() -> None:
    """Gold 6, answers 6.2 and 6.01: the task's 5 % accept both, 1 % takes the second alone."""
    found = [
        Graded(graded("a", index, text).sample, Verdict("a", index, 1.0, Reason.CORRECT, answer))
        for index, (text, answer) in enumerate([("x", 6.2), ("y", 6.01)])
    ]
    assert texts(choose(found, strategy="distinct")) == ["x", "y"]
    selection = choose(found, strategy="distinct", tolerance=0.01)
    assert texts(selection) == ["y"]
    assert selection.account.refused == {"imprecise": 1}
    assert selection.account.correct == 2


def test_a_tolerance_of_selection_needs_numbers() -> None:
    text = Graded(graded("a", 0).sample, Verdict("a", 0, 1.0, Reason.CORRECT, "six"))
    with pytest.raises(ConfigError, match=r"select.tolerance = 0.01: problem 'a' is not answered by a number"):
        choose([text], tolerance=0.01)


@pytest.mark.parametrize(
    ("bad", "why"),
    [
        (graded("a", 0, reason=Reason.NO_ANSWER), "no_answer"),
        (graded("a", 0, reason=Reason.TRUNCATED), "truncated"),
        (graded("a", 0, reason=Reason.ERROR), "error"),
        (graded("a", 0, stop=Stop.LENGTH), "truncated"),
        (graded("a", 0, "so <answer>6", notes=("unclosed_tag",)), "unclosed_tag"),
        (graded("a", 0, "  "), "empty"),
    ],
)
def test_what_must_not_be_imitated_is_refused_and_the_next_one_taken(bad: Graded, why: str) -> None:
    selection = choose([bad, graded("a", 1, "good")])
    assert texts(selection) == ["good"]
    assert selection.account.refused == {why: 1}


def test_rows_carry_their_lineage_and_gold() -> None:
    selection = choose([graded("a", 5, " worked <answer>6</answer>\n")], n=2)
    (row,) = selection.rows
    assert row.lineage == Lineage("a", 5, 7, "tiny", round=2)
    assert row.prompt == problem("a").prompt and row.meta == {"answer": "6.0"} and row.source == "file:a"
    assert row.completions[0].text == "worked <answer>6</answer>"


def test_account_of_pass_rates() -> None:
    found = [graded("a", index, str(index)) for index in range(4)]
    found += [graded("b", index, str(index), Reason.WRONG if index else Reason.CORRECT) for index in range(4)]
    found += [graded("c", index, "", Reason.ERROR if index else Reason.WRONG) for index in range(4)]
    account = choose(found, "abcd").account
    assert (account.questions, account.solved, account.samples, account.correct) == (4, 2, 12, 5)
    assert account.pass_rate == pytest.approx((1 + 0.25 + 0) / 3)
    assert account.histogram == (1, 0, 1, 0, 0, 0, 0, 0, 0, 1)
    assert (account.rows, account.questions_kept) == (2, 2)
    assert ("solved", "2 (50.0%)") in account.table()


@given(
    outcomes=st.lists(
        st.tuples(st.sampled_from("abc"), st.sampled_from(Reason), st.sampled_from(Stop), st.sampled_from("pqr ")),
        max_size=30,
    ),
    strategy=st.sampled_from(["first_correct", "distinct"]),
    per_problem=st.integers(1, 4),
)
def test_every_sample_is_a_row_or_refused(
    outcomes: list[tuple[str, Reason, Stop, str]], strategy: str, per_problem: int
) -> None:
    found = [graded(name, index, text, reason, stop=stop) for index, (name, reason, stop, text) in enumerate(outcomes)]
    selection = choose(found, "abc", strategy=strategy, per_problem=per_problem)
    account = selection.account
    assert account.samples == len(found) == account.rows + sum(account.refused.values())
    assert len(selection.rows) == account.rows
    names = [row.lineage.problem_id for row in selection.rows if row.lineage is not None]
    assert max(map(names.count, "abc")) <= (1 if strategy == "first_correct" else per_problem)
    assert len({(row.prompt, row.completions[0].text) for row in selection.rows}) == len(selection.rows)
