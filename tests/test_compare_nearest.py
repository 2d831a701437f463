"""From a wrong answer to the training rows that are nearest to it."""

from __future__ import annotations

import json
import math
from collections import Counter
from pathlib import Path

import pytest
from compare_setup import answers, write_evaluation, write_training

from ramify.base.config import Data, RunConfig, Task
from ramify.base.records import write_jsonl
from ramify.base.types import Completion, Example, Lineage, Message
from ramify.evaluate.compare.comparison import compare_runs
from ramify.evaluate.compare.nearest import TrainingRow, TrainingRows, nearest
from ramify.evaluate.compare.trace import traced

TEXTS = (
    "How many metres are 3 kilometres?\n3000",
    "How many eggs are 7 eggs?\n7",
    "Name the capital of France.\nParis",
    "Name the capital of Italy.\nRome",
    "Wie viele Eier sind sieben Eier?\nsieben",
    "日本の首都はどこですか。\n東京",
)


def rows(texts: tuple[str, ...] = TEXTS) -> list[TrainingRow]:
    """Texts as training rows."""
    return [TrainingRow(f"rows.jsonl:{i + 1}", *text.split("\n")) for i, text in enumerate(texts)]


@pytest.mark.parametrize(
    ("text", "line"),
    [("How many eggs are 9 eggs?\nnine", 2), ("The capital of France?\nLyon", 3), ("日本の首都は？\n京都", 6)],
)
def test_the_nearest_row_is_the_one_that_is_alike(text: str, line: int) -> None:
    [found] = nearest(rows(), [text], k=2)
    assert found[0].row.source == f"rows.jsonl:{line}"
    assert all(found[0].score > other.score > 0 for other in found[1:])


def runs_of(text: str) -> Counter[str]:
    """All runs of 3 to 5 letters."""
    plain = f" {' '.join(text.casefold().split())} "
    return Counter(plain[i : i + n] for n in (3, 4, 5) for i in range(len(plain) - n + 1))


def cosine(asked: str, text: str) -> float:
    """The cosine of the TF-IDF weights of two texts among `TEXTS`, without hashing."""
    known = [runs_of(each) for each in TEXTS]

    def weighed(found: Counter[str]) -> dict[str, float]:
        rarity = {run: math.log((1 + len(known)) / (1 + sum(run in each for each in known))) + 1 for run in found}
        return {run: (1 + math.log(count)) * rarity[run] for run, count in found.items()}

    a, b = weighed(runs_of(asked)), weighed(runs_of(text))
    return sum(a[run] * b[run] for run in a.keys() & b.keys()) / (math.hypot(*a.values()) * math.hypot(*b.values()))


def test_nearness_is_the_cosine_of_tf_idf_weights() -> None:
    asked = "How many kilometres are 9 metres?\n9000"
    expected = [cosine(asked, text) for text in TEXTS]
    found = {near.row.source: near.score for near in nearest(rows(), [asked], k=6)[0]}
    for number, value in enumerate(expected, start=1):
        assert found.get(f"rows.jsonl:{number}", 0.0) == pytest.approx(value, abs=0.01)  # two runs may share a hash


def test_a_row_itself_is_nearest_and_equals_it() -> None:
    for row, [first, *_] in zip(rows(), nearest(rows(), TEXTS, k=1), strict=True):
        assert first.row == row and first.score == pytest.approx(1.0, abs=1e-5)


def test_equally_near_rows_come_in_their_order() -> None:
    same = rows((TEXTS[0],) * 5)
    assert [near.row.source for near in nearest(same, [TEXTS[0]], k=3)[0]] == [row.source for row in same[:3]]


def test_nothing_in_common_is_not_near() -> None:
    assert nearest(rows(("aaaa\nbbbb",)), ["zzzz"]) == [[]]
    assert nearest([], ["zzzz"]) == [[]] and nearest(rows(), []) == []
    assert nearest(rows(("\n",)), [""]) == [[]]


def test_rows_of_every_kind_of_training_are_found(tmp_path: Path) -> None:
    lineage = Lineage("p1", 3, 42, "nano", 1)
    example = Example((Message("user", "2 eggs?"),), (Completion("two"),), "x", lineage)
    write_jsonl(tmp_path / "rows.jsonl", [example])
    [selected] = TrainingRows(RunConfig(method="rft"), str(tmp_path / "rows.jsonl"))
    assert (selected.question, selected.answer, selected.lineage) == ("2 eggs?", "two", lineage)
    pairs = tmp_path / "pairs.jsonl"
    write_jsonl(pairs, [{"prompt": "2 eggs?", "chosen": "two", "rejected": "three"}])
    [pair] = TrainingRows(RunConfig(method="dpo", data=Data(train=pairs)))
    assert (pair.question, pair.answer) == ("2 eggs?", "two")
    own = list(TrainingRows(RunConfig(data=Data(train="task"), task=Task(rows=5))))
    assert len(own) == 5 and own[0].question and own[0].answer


def trained_on(tmp_path: Path, rows: str | None) -> list[Path]:
    """A base, and a training that has broken two of its answers."""
    base = write_evaluation(tmp_path / "base", answers(6, 12))
    return [base, write_training(tmp_path / "tuned", answers(6, 12, begin=2), rows=rows)]


def test_broken_answers_are_traced_to_their_rows(tmp_path: Path) -> None:
    data = tmp_path / "train.json"
    pairs = [[f"How many eggs are {i} eggs?", float(i)] for i in range(30)]
    data.write_text(json.dumps(pairs), encoding="utf-8")
    found = traced(compare_runs(trained_on(tmp_path, str(data))), k=2)
    assert set(found.main.near) == {flip.problem.id for flip in found.main.broken} == {"p0", "p1"}
    nearest_to = found.main.near["p1"]
    assert len(nearest_to) == 2 and nearest_to[0].row.question == "How many eggs are 1 eggs?"


def test_rows_beyond_those_that_are_searched_are_said_to_be(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ramify.evaluate.compare.nearest.MOST_ROWS", 5)
    monkeypatch.setattr("ramify.evaluate.compare.trace.MOST_ROWS", 5)
    base = write_evaluation(tmp_path / "base", answers(8, 10))
    for count, cut in ((5, False), (6, True)):
        rows = tmp_path / f"rows{count}.jsonl"
        write_jsonl(rows, [{"prompt": f"How many eggs are {i} eggs?", "completion": f"{i}"} for i in range(count)])
        tuned = write_training(tmp_path / f"tuned{count}", answers(3, 10), rows=str(rows))
        notes = " ".join(traced(compare_runs([base, tuned])).notes)
        assert (f"Of the rows that {tuned} was trained on the first 5 were searched." in notes) == cut


def test_rows_that_are_gone_are_said_to_be(tmp_path: Path) -> None:
    found = traced(compare_runs(trained_on(tmp_path, str(tmp_path / "gone.json"))))
    assert found.main.near == {}
    assert "cannot be read any more" in found.notes[-1]
