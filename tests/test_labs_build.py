"""From lab folders to rows: what is written, who trains, and that nothing else decides it."""

from __future__ import annotations

import json
import random
import shutil
import tracemalloc
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from lab_setup import PROGRAM, RATINGS, graded, lines, people, write_lab

from ramify.base.errors import ConfigError, DataError, RunError
from ramify.data.labs.build import build
from ramify.data.labs.records import Against, Choices, Form, Note, Reason, Statement
from ramify.data.labs.rows import held_against, student_key
from ramify.data.labs.split import Links, train_students
from ramify.data.lint import flaws
from ramify.data.sources import read_examples, read_pairs, read_problems


def built(labs: Path, out: Path, **choices: Any) -> tuple[list[dict[str, Any]], list[dict[str, Any]], dict[str, Any]]:
    """(train rows, test rows, report)."""
    build(labs, out, Choices(**choices))
    return lines(out / "train.jsonl"), lines(out / "test.jsonl"), json.loads((out / "report.json").read_text())


@pytest.fixture
def labs(tmp_path: Path) -> Path:
    """Three labs of the same twenty students; the second is the newer export."""
    for number in range(3):
        comment = 'well, mostly: see "notes",\nline 2' if number == 1 else "1"
        write_lab(tmp_path / "labs" / f"lab{number}", graded(20), comment=comment)
    return tmp_path / "labs"


def test_each_other_rating_is_rejected_once(tmp_path: Path) -> None:
    write_lab(tmp_path / "labs" / "lab1", {"ann@x.org": [1, 0]})
    train, test, _ = built(tmp_path / "labs", tmp_path / "out")
    key = student_key("ann", Choices())
    first = train[0]
    assert first.pop("prompt") == (
        "Context:\nWrite the program of lab1.\n\nCode:\nint main() {\n    return 0;\n}\n\n"
        "Task:\nJudge the code by one criterion. Correctness: About correctness.\n\n"
        "Options:\nA. All right.\nB. Some wrong.\nC. Most wrong.\nD. Fails.\n\n"
        'Response:\nOne option, copied as it stands above, as JSON and nothing else: {"answer": "<option>"}'
    )
    assert first == {
        "chosen": '{"answer": "B. Some wrong."}',
        "rejected": '{"answer": "A. All right."}',
        "lab": "lab1",
        "student": key,
        "criterion": "Correctness",
        "chosen_rating": "B",
        "rejected_rating": "A",
        "margin": 1,
        "split": "train",
        "source": f"lab1/{key}/Correctness",
    }
    assert [(row["criterion"], row["rejected_rating"], row["margin"]) for row in train[1:]] == [
        ("Correctness", "C", 1),
        ("Correctness", "D", 2),
        ("Style", "B", 1),
    ]
    assert test == []


@pytest.mark.parametrize(
    ("against", "rejected"),
    [(Against.ALL, "ACD"), (Against.ADJACENT, "AC"), (Against.EXTREME, "D")],
)
def test_which_ratings_are_rejected(tmp_path: Path, against: Against, rejected: str) -> None:
    write_lab(tmp_path / "labs" / "lab1", {"ann@x.org": [1, None]})
    train, _, report = built(tmp_path / "labs", tmp_path / "out", against=against)
    assert "".join(row["rejected_rating"] for row in train) == rejected
    assert report["labs"][0]["criteria"][0]["rows"] == len(rejected)


@given(count=st.integers(1, 7), data=st.data())
def test_rejected_ratings_are_others_and_the_choices_nest(count: int, data: st.DataObject) -> None:
    chosen = data.draw(st.integers(0, count - 1))
    everything, near, far = (held_against(chosen, count, each) for each in Against)
    assert list(everything) == [index for index in range(count) if index != chosen]
    assert set(near) | set(far) <= set(everything)
    assert all(abs(index - chosen) == 1 for index in near)
    assert bool(far) == (count > 1)
    assert set(far) <= {0, count - 1}


def test_both_exports_say_the_same(labs: Path, tmp_path: Path) -> None:
    train, test, _ = built(labs, tmp_path / "out")
    by_lab: dict[str, list[tuple[str, ...]]] = defaultdict(list)
    for row in train + test:
        by_lab[row["lab"]].append((row["student"], row["criterion"], row["chosen_rating"], row["rejected_rating"]))
    assert by_lab["lab0"] == by_lab["lab1"] == by_lab["lab2"]
    assert len(by_lab["lab0"]) == 20 * (3 + 1)


def test_rows_are_read_as_pairs_examples_and_problems(labs: Path, tmp_path: Path) -> None:
    for form in Form:
        build(labs, tmp_path / form.value, Choices(form=form, system="Grade."))
    pairs = read_pairs(tmp_path / "pairs" / "train.jsonl")
    assert len(pairs) == 3 * 14 * 4
    assert [message.role for message in pairs[0].prompt] == ["system", "user"]
    assert {"lab", "student", "criterion", "split"} <= set(pairs[0].meta)
    assert {pair.margin for pair in pairs} == {1, 2, 3}
    assert not flaws(pairs)
    examples = read_examples(tmp_path / "sft" / "train.jsonl")
    assert {json.loads(each.completions[0].text)["answer"][0] for each in examples} == set("ABCD")
    problems = read_problems(tmp_path / "problems" / "test.jsonl")
    assert len(problems) == 3 * 6 * 2
    assert all(f'{{"answer": "{each.answer}. ' in "".join(each.options) for each in problems)
    assert all(len(each.options) in (2, 4) for each in problems)
    assert {each.category for each in problems} == {f"lab{n} / {title}" for n in range(3) for title in RATINGS}
    assert {each.meta["split"] for each in problems} == {"unseen student, seen lab"}


def test_a_student_is_on_one_side_in_every_lab(labs: Path, tmp_path: Path) -> None:
    train, test, report = built(labs, tmp_path / "out")
    assert not {row["student"] for row in train} & {row["student"] for row in test}
    assert report["splits"]["train"]["students"] == 14
    assert report["totals"]["students"] == 20


def test_held_out_labs_are_test_rows_and_say_who_was_seen(labs: Path, tmp_path: Path) -> None:
    train, test, report = built(labs, tmp_path / "out", eval_labs=("lab2",))
    assert {row["lab"] for row in train} == {"lab0", "lab1"}
    seen = {row["student"] for row in train}
    for row in test:
        expected = f"{'seen' if row['student'] in seen else 'unseen'} student, "
        assert row["split"] == expected + ("unseen lab" if row["lab"] == "lab2" else "seen lab")
    assert {name: found["students"] for name, found in report["splits"].items()} == {
        "train": 14,
        "unseen student, seen lab": 6,
        "unseen student, unseen lab": 6,
        "seen student, unseen lab": 14,
    }
    assert [lab["held_out"] for lab in report["labs"]] == [False, False, True]


def test_shielded_students_never_train(labs: Path, tmp_path: Path) -> None:
    shutil.rmtree(labs / "lab2")
    write_lab(labs / "lab2", {who: [0, 0] for who in people(5)})
    train, test, _ = built(labs, tmp_path / "out", eval_labs=("lab2",), shield_students=True)
    held_out = {row["student"] for row in test if row["lab"] == "lab2"}
    assert len(held_out) == 5
    assert not held_out & {row["student"] for row in train}
    assert {row["split"] for row in test if row["lab"] == "lab2"} == {"unseen student, unseen lab"}
    assert len({row["student"] for row in train}) == 14  # the share is that of all students


def test_students_with_the_same_text_stay_together_and_are_reported(tmp_path: Path) -> None:
    who = people(12)
    for split in range(6):
        same = {
            each: "int main() {return 1;}" if n % 2 else "int  main()\n{ return 1; }\n"
            for n, each in enumerate(who[:4])
        }
        folder = tmp_path / f"labs{split}"
        write_lab(folder / "lab1", {each: [0, 0] for each in who}, code=same)
        train, test, report = built(folder, tmp_path / f"out{split}", seed=split, train_split=0.5)
        linked = {student_key(each.partition("@")[0], Choices(seed=split)) for each in who[:4]}
        sides = [linked & {row["student"] for row in rows} for rows in (train, test)]
        assert sorted(map(len, sides)) == [0, 4]
        assert len({row["student"] for row in train}) == 6
        repeated = [note for note in report["notes"] if note["what"].startswith("the same text")]
        assert {note["student"] for note in repeated} == linked
        assert len({note["what"] for note in repeated}) == 1


@given(
    groups=st.lists(st.integers(1, 9), max_size=12),
    share=st.floats(0, 1),
    seed=st.integers(0, 5),
)
def test_the_split_is_as_near_to_its_share_as_its_largest_group(groups: list[int], share: float, seed: int) -> None:
    names = [tuple(f"{group}.{member}" for member in range(size)) for group, size in enumerate(groups)]
    chosen = train_students(names, share, seed)
    for group in names:
        assert set(group) <= chosen or not set(group) & chosen
    assert abs(len(chosen) - share * sum(groups)) <= max(groups, default=0) / 2 + 1e-9
    assert chosen == train_students(names[::-1], share, seed)


@given(st.lists(st.tuples(st.integers(0, 15), st.integers(0, 15))))
def test_links_are_the_connected_components(edges: list[tuple[int, int]]) -> None:
    links = Links()
    reach = {node: {node} for node in range(16)}
    for node in range(16):
        links.add(f"{node:02}")
    for one, other in edges:
        links.join(f"{one:02}", f"{other:02}")
        joined = reach[one] | reach[other]
        for node in joined:
            reach[node] = joined
    assert set(links.groups()) == {tuple(f"{node:02}" for node in sorted(found)) for found in reach.values()}


def test_nothing_but_content_decides(tmp_path: Path) -> None:
    """The same labs, their folders and rows made in another order, in another place."""
    marks = graded(15)
    for order in range(3):
        shuffled = list(marks.items())
        random.Random(order).shuffle(shuffled)
        code = {who: PROGRAM.format(number) for number, who in enumerate(marks)}
        for name in (("a", "b", "c"), ("c", "a", "b"), ("b", "c", "a"))[order]:
            write_lab(tmp_path / f"labs{order}" / name, dict(shuffled), code=code)
        build(tmp_path / f"labs{order}", tmp_path / f"out{order}", Choices(eval_labs=("b",)))
    for name in ("train.jsonl", "test.jsonl", "report.json"):
        assert len({(tmp_path / f"out{order}" / name).read_bytes() for order in range(3)}) == 1


def test_another_seed_is_another_split_and_a_key_file_other_keys(labs: Path, tmp_path: Path) -> None:
    def students(name: str, **choices: Any) -> tuple[set[str], set[str]]:
        train, test, _ = built(labs, tmp_path / name, **choices)
        return {row["student"] for row in train}, {row["student"] for row in test}

    plain, secret = students("plain"), students("secret", secret=b"x")
    assert not plain[0] & secret[0]
    assert [len(side) for side in plain] == [len(side) for side in secret]
    names = [who.partition("@")[0] for who in people(20)]
    sides = set()
    for seed in range(3):
        train, _ = students(f"by{seed}", seed=seed)
        sides.add(frozenset(name for name in names if student_key(name, Choices(seed=seed)) in train))
    assert len(sides) == 3


def test_short_statements_and_what_stands_in(labs: Path, tmp_path: Path) -> None:
    (labs / "lab1" / "modified_ps.txt").unlink()
    (labs / "lab2" / "ps.txt").rename(labs / "lab2" / "problemStatement.txt")
    notes: list[Note] = []
    build(labs, tmp_path / "short", Choices(statement=Statement.SHORT), tell=notes.append)
    assert [(note.lab, note.reason, note.file) for note in notes] == [("lab1", Reason.STAND_IN, "ps.txt")]
    contexts = {row["lab"]: row["prompt"].split("\n")[1] for row in lines(tmp_path / "short" / "train.jsonl")}
    assert contexts == {"lab0": "Write it.", "lab1": "Write the program of lab1.", "lab2": "Write it."}
    verbose, _, report = built(labs, tmp_path / "verbose")
    assert {row["prompt"].split("\n")[1] for row in verbose} == {f"Write the program of lab{n}." for n in range(3)}
    assert report["notes"] == []


def test_several_files_are_named_in_order_of_their_names(tmp_path: Path) -> None:
    files = {
        "zoo.py": "b = 1\r\n",
        "app.java": "class A {}",
        "lib/x.h": "int x;",
        "notes.pdf": b"%PDF\0",
        ".git/y.c": "no",
    }
    write_lab(tmp_path / "labs" / "lab1", {"ann@x.org": [0, 0]}, code={"ann@x.org": files})
    train, _, report = built(tmp_path / "labs", tmp_path / "out")
    code = train[0]["prompt"].split("Code:\n")[1].split("\n\nTask:")[0]
    assert code == "File: app.java\nclass A {}\n\nFile: zoo.py\nb = 1\n\nFile: lib/x.h\nint x;"
    assert report["notes"] == []


def test_no_name_or_address_reaches_the_output(tmp_path: Path) -> None:
    code = {
        "jane.doe@uni.example": "// Jane Doe <jane.doe@uni.example>\n"
        "// with max.oak, jdoe@home.example\nint max(int a);\n",
        "max.oak@uni.example": {"max_oak.cpp": "/* by Max */ int m = std::max(1, 2);", "b.cpp": 'puts("Max Oak");'},
        "li42wang@uni.example": 'int main() { puts("li42wang"); }  // Li42Wang',
    }
    write_lab(tmp_path / "labs" / "lab1", {who: [0, 1] for who in code}, code=code)
    (tmp_path / "labs" / "lab1" / "ps.txt").write_text("Ask li42wang@uni.example, or find who@mail.example.")
    _, _, report = built(tmp_path / "labs", tmp_path / "out")
    written = "".join((tmp_path / "out" / name).read_text() for name in ("train.jsonl", "test.jsonl", "report.json"))
    for name in ("Jane", "jane", "Doe", "doe", "Oak", "oak", "Max", "li42", "Li42", "uni.example", "home.example"):
        assert name not in written
    assert "int max(int a);" in written
    assert "std::max(1, 2)" in written
    assert "who@mail.example" in written
    assert report["totals"]["names and addresses replaced"] == 10


def test_a_text_that_differs_in_its_author_only_is_the_same_text(tmp_path: Path) -> None:
    code = {"ann.ash@x.org": "// Ann Ash\nint x;", "bob.oak@x.org": "// Bob Oak\nint x;"}
    write_lab(tmp_path / "labs" / "lab1", {who: [0, 0] for who in code}, code=code)
    _, _, report = built(tmp_path / "labs", tmp_path / "out")
    assert report["totals"]["submissions whose text occurs again"] == 2


def test_counts_of_the_report_are_those_of_the_files(labs: Path, tmp_path: Path) -> None:
    train, test, report = built(labs, tmp_path / "out", eval_labs=("lab0",))
    rows = Counter((row["lab"], row["criterion"]) for row in train + test)
    for lab in report["labs"]:
        for each in lab["criteria"]:
            assert each["rows"] == rows[lab["lab"], each["criterion"]]
            assert each["grades"] == sum(each["ratings"].values()) == 20
    sizes = Counter(row["split"] for row in train + test)
    assert {name: found["rows"] for name, found in report["splits"].items()} == sizes
    assert report["totals"]["rows"] == len(train) + len(test)
    assert report["choices"]["eval_labs"] == ["lab0"]


def test_the_output_is_whole_or_absent(labs: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    (labs / "lab2" / "rubrics.json").write_text("[")
    with pytest.raises(DataError, match=r"^lab2:rubrics\.json: the rubric cannot be used: not valid JSON"):
        build(labs, out, Choices(strict=True))
    assert not out.exists()
    build(labs, out, Choices())
    (out / "mine.txt").write_text("keep")
    before = {path.name: path.read_bytes() for path in out.iterdir()}
    with pytest.raises(RunError, match="holds files already"):
        build(labs, out, Choices(seed=1))
    assert {path.name: path.read_bytes() for path in out.iterdir()} == before
    build(labs, out, Choices(seed=1), overwrite=True)
    assert {path.name for path in out.iterdir()} == {*before}
    assert (out / "train.jsonl").read_bytes() != before["train.jsonl"]


def test_a_folder_that_cannot_be_written_is_an_error(labs: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(RunError, match="is a file"):
        build(labs, tmp_path / "file", Choices())
    with pytest.raises(RunError, match="cannot be written"):
        build(labs, tmp_path / "file" / "out", Choices())
    assert (tmp_path / "file").read_text() == "x"


def test_an_interruption_leaves_nothing(labs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from ramify.data.labs import build as module

    reads: list[str] = []

    def interrupted(root: Path, name: str, choices: Choices) -> Any:
        reads.append(name)
        if len(reads) == 5:
            raise KeyboardInterrupt
        return read(root, name, choices)

    read = module.read_lab
    monkeypatch.setattr(module, "read_lab", interrupted)
    with pytest.raises(KeyboardInterrupt):
        build(labs, tmp_path / "out", Choices())
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("choices", "message"),
    [
        ({"eval_labs": ("lab9",)}, "unknown held-out lab 'lab9'; did you mean 'lab"),
        ({"eval_labs": ("../lab1",)}, "unknown held-out lab"),
        ({"train_split": 1.5}, "train_split = 1.5"),
        ({"train_split": float("nan")}, "train_split = nan"),
        ({"max_file_kb": 0}, "max_file_kb = 0"),
        ({"secret": b""}, "key file is empty"),
        ({"system": " \n"}, "system prompt is empty"),
        ({"shield_students": True}, "does nothing without held-out labs"),
    ],
)
def test_choices_that_no_build_could_follow(labs: Path, tmp_path: Path, choices: Any, message: str) -> None:
    with pytest.raises((ConfigError, DataError)) as error:
        build(labs, tmp_path / "out", Choices(**choices))
    assert message in str(error.value)
    assert "\n" not in str(error.value)
    assert not (tmp_path / "out").exists()


def test_folders_that_are_no_labs(labs: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such folder"):
        build(tmp_path / "none", tmp_path / "out", Choices())
    with pytest.raises(DataError, match="is a lab itself"):
        build(labs / "lab0", tmp_path / "out", Choices())
    with pytest.raises(ConfigError, match="within the labs"):
        build(labs, labs / "out", Choices())
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="holds no lab folders"):
        build(tmp_path / "empty", tmp_path / "out", Choices())


def test_memory_does_not_grow_with_the_number_of_labs(tmp_path: Path) -> None:
    def peak(count: int) -> int:
        program = {who: f"/* {'-' * 9000} */ int a{number};" for number, who in enumerate(people(8))}
        for number in range(count):
            write_lab(tmp_path / f"{count}" / f"lab{number:02}", graded(8), code=program)
        tracemalloc.start()
        build(tmp_path / f"{count}", tmp_path / f"out{count}", Choices())
        _, highest = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        return highest

    few, many = peak(2), peak(10)  # the rows of one lab are 300 kB
    assert many - few < 100_000


def test_labs_of_real_programs(shared: Path, tmp_path: Path) -> None:
    source = shared / "data" / "itsp_c" / "labs.jsonl"
    if not source.is_file():
        pytest.skip("no C programs here")
    submitted = 0
    for lab in lines(source):
        code = {f"s{number:03}@c.example": each["code"] for number, each in enumerate(lab["submissions"])}
        marks = {
            who: [0 if each["verdict"] == "correct" else 2, None]
            for who, each in zip(code, lab["submissions"], strict=True)
        }
        write_lab(tmp_path / "labs" / f"{lab['lab']}-{lab['problem']}", marks, code=code)
        submitted += len(code)
    train, test, report = built(tmp_path / "labs", tmp_path / "out", max_file_kb=256)
    assert submitted == 298
    assert len(train) + len(test) == 3 * submitted
    assert report["totals"]["grades"] == submitted
    assert not {row["student"] for row in train} & {row["student"] for row in test}
    texts: dict[tuple[str, str], set[str]] = defaultdict(set)
    for row in train + test:
        code_text = row["prompt"].split("Code:\n", 1)[1].rsplit("\n\nTask:", 1)[0]
        texts[row["lab"], "".join(code_text.split())].add("train" if row["split"] == "train" else "test")
    assert all(len(sides) == 1 for sides in texts.values())
    shown = next(row for row in train if row["lab"] == "Lab-3-2810")
    assert "int main()" in shown["prompt"]
