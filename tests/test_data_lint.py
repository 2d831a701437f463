"""What is told about pairs before they are trained on: each flaw, lengths, what is shared; and the command's table."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from train_setup import model_folder
from typer.testing import CliRunner

from ramify.base.config import RunConfig
from ramify.base.config_file import parse_config
from ramify.base.types import Message, Pair, TokenSequence
from ramify.cli.lint import Measure, leaked_prompts, pair_lines
from ramify.cli.main import app
from ramify.data.lint import Flaw, Lengths, by_length, flaws, too_long
from ramify.data.sources import read_pairs
from ramify.tree.tree import grow

__all__ = ["model_folder"]


def pair(chosen: str, rejected: str, prompt: str = "Grade this.", source: str = "") -> Pair:
    return Pair((Message("user", prompt),), chosen, rejected, source=source)


def test_sound_pairs_have_no_flaw() -> None:
    assert flaws([pair("a", "b"), pair("a", "c"), pair("b", "c"), pair("a", "b", prompt="Grade that.")]) == {}
    assert flaws([]) == {}


def test_equal_and_empty_sides() -> None:
    found = flaws([pair("a", "b"), pair("a", "a"), pair("a", " a\n"), pair("", "b"), pair("b", " \n"), pair("", "")])
    assert found == {Flaw.EQUAL: (1, 2, 5), Flaw.EMPTY: (3, 4, 5)}


def test_repetitions_and_the_same_pair_both_ways_round() -> None:
    found = flaws([pair("a", "b"), pair("b", "a"), pair("a", "b"), pair("a", "c"), pair("b", "a", prompt="Other")])
    assert found == {Flaw.REPEATED: (2,), Flaw.BOTH_WAYS: (0, 1)}
    assert flaws([pair("a", "a"), pair("a", "a")]) == {Flaw.EQUAL: (0, 1), Flaw.REPEATED: (1,)}


def test_end_tokens_typed_into_answers() -> None:
    pairs = [
        pair("a</s>", "b"),
        pair("a", "b<|im_end|>"),
        pair("a", "b", prompt="What does </s> mean?"),
        pair("<e>", ""),
    ]
    assert flaws(pairs)[Flaw.END_TOKEN] == (0, 1)
    assert flaws(pairs, ["<e>"])[Flaw.END_TOKEN] == (3,)


@pytest.mark.parametrize(
    ("text", "is_flaw"),
    [
        (r"first\nsecond", True),
        (r"Context:\n\nCode:", True),
        ("first\nsecond", False),
        (r'printf("%d\n", x);', False),
        (r"putchar('\n');", False),
        (r"end it with `\n` please", False),
        (r'{"answer": "B. one\ntwo"}', False),
        (r'say "no"\nand go', True),
        (r"$x \neq 0$ and $\nabla f$", False),
        (r"x\nextra", True),
        ('open "quote\nprintf\\n', True),
    ],
)
def test_a_line_break_typed_as_two_characters(text: str, is_flaw: bool) -> None:
    places = (pair(text, "b"), pair("a", text), pair("a", "b", prompt=text))
    assert all((Flaw.BACKSLASH_N in flaws([each])) == is_flaw for each in places)


def test_lengths_against_a_limit() -> None:
    lengths = [Lengths(6, 4, 3), Lengths(6, 3, 5), Lengths(6, 5, 3), Lengths(10, 1, 1), Lengths(9, 1, 1)]
    assert too_long(lengths, 10) == {Flaw.LONG_PROMPT: (3,), Flaw.LONG_ANSWER: (1, 2)}
    assert too_long(lengths, 11) == {}


def test_length_within_pairs_is_the_area_under_the_curve() -> None:
    found = by_length([Lengths(1, 5, 3), Lengths(1, 2, 3), Lengths(1, 4, 4), Lengths(9, 7, 1)])
    assert (found.longer, found.tied, found.n) == (2, 1, 4)
    assert found.share == (2 + 0.5) / 4
    assert (found.chosen, found.rejected) == (18 / 4, 11 / 4)
    assert by_length([]).share == 0.5


def lines(config: RunConfig, pairs: list[Pair]) -> dict[str, object]:
    return dict(pair_lines(config, "train", pairs, Measure.of(config)))


def test_without_a_model_lengths_are_in_characters() -> None:
    found = lines(parse_config({}), [pair("yes", "no"), pair("no", "yes", prompt="Other")])
    rule = "pairs whose longer answer is the chosen one, a tie as half (95 % interval over prompts)"
    assert found == {
        "train: pairs": 2,
        "train: prompts that differ": 2,
        "train: mean characters of chosen and of rejected answers": "2.5, 2.5",
        f"train: {rule}": "50.0 % (9-91)",
    }


def test_nothing_is_said_of_lengths_where_no_pair_is_sound() -> None:
    assert [name for name in lines(parse_config({}), [pair("", ""), pair("a", "a ")]) if "longer" in name] == []


@pytest.mark.parametrize(
    ("chosen", "rejected", "rule"), [("long answer", "no", "longer"), ("no", "long one", "shorter")]
)
def test_pairs_that_length_alone_separates_are_named(chosen: str, rejected: str, rule: str) -> None:
    pairs = [pair(chosen, rejected, prompt=f"Question {number}?") for number in range(20)]
    flag = f"train: separable by length alone ({rule} wins, interval beyond 70 %)"
    assert lines(parse_config({}), pairs)[flag] == "yes"
    assert flag not in lines(parse_config({}), pairs[:3])  # three of three do not show it


def test_pairs_of_one_prompt_are_no_evidence_of_their_own() -> None:
    pairs = [pair(f"long answer {number}", "no") for number in range(20)]
    assert not [name for name in lines(parse_config({}), pairs) if "separable" in name]


def test_with_a_model_lengths_are_its_tokens_and_sharing_is_told(model_folder: Path) -> None:
    code = "int main(void) { return 0; } "  # its greater part is shared by the prompts of two criteria
    pairs = [
        pair("B. fair", other, prompt=code + criterion) for criterion in "xy" for other in ("A. very good", "C. bad")
    ]
    longest = len(code) + len("x") + len(" A. very good") + 1  # a token a byte, and eos
    values = {"model": str(model_folder), "prompt": {"chat_template": "plain"}, "data": {"max_length": longest - 1}}
    found = lines(parse_config(values), pairs)
    measure = Measure.of(parse_config(values))
    assert measure is not None
    ids = [[measure.renderer.completion_ids(one.prompt, text) for text in (one.chosen, one.rejected)] for one in pairs]
    assert found[f"train: tokens of the longest sequence ({longest - 1} are allowed)"] == longest
    assert found["train: pairs whose prompt and longer answer are too long"] == 2
    mean = [sum(len(sides[place]) for sides in ids) / 4 for place in (0, 1)]
    assert found["train: mean tokens of chosen and of rejected answers"] == f"{mean[0]:.1f}, {mean[1]:.1f}"
    trees = {
        kind: sum(tree_tokens(measure, [pairs[place] for place in group]) for group in groups)
        for kind, groups in {"none": [[0], [1], [2], [3]], "prompt": [[0, 1], [2, 3]], "prefix": [[0, 1, 2, 3]]}.items()
    }
    assert trees["none"] > trees["prompt"] > trees["prefix"]
    for kind, tokens in trees.items():
        told = str(found[f"train: of them computed with dpo.group_by={kind}, each group at once"])
        assert told.startswith(f"{tokens:,} (") and told.endswith(" x fewer)")


def tree_tokens(measure: Measure, pairs: list[Pair]) -> int:
    """By growing the tree that training grows."""
    renderer = measure.renderer
    sequences = [
        TokenSequence.of(renderer.prompt_ids(each.prompt), renderer.completion_ids(each.prompt, text))
        for each in pairs
        for text in (each.chosen, each.rejected)
    ]
    return len(grow(sequences).ids)


def test_the_models_own_end_tokens_count_and_flawed_pairs_are_not_rendered(model_folder: Path) -> None:
    config = parse_config({"model": str(model_folder), "prompt": {"chat_template": "plain"}})
    found = lines(config, [pair("a", "b"), pair("", "b"), pair("a", "a"), pair("a<|im_end|>b", "c", source="f:4")])
    assert found["train: pairs with an end token typed into an answer (first: f:4)"] == 1
    assert (
        found["train: tokens of all sequences"] == f"{2 * len('Grade this. a') + 2:,}"
    )  # of the first pair: bytes, eos


def test_prompts_that_leak_into_validation() -> None:
    train = [pair("a", "b", prompt="One  question?")]
    assert leaked_prompts(train, [pair("c", "d", prompt="one question?"), pair("a", "b", prompt="Another?")]) == 1


def test_the_command_prints_them_for_a_file_of_pairs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    rows = [{"prompt": "Grade.", "chosen": "good", "rejected": other} for other in ("bad", "bad", "good", "fair</s>")]
    for name in ("pairs.jsonl", "valid.jsonl"):
        Path(name).write_text("".join(json.dumps(row) + "\n" for row in rows[: 4 if name == "pairs.jsonl" else 1]))
    done = CliRunner().invoke(app, ["data", "check", "pairs.jsonl", "data.valid=valid.jsonl"])
    assert done.exit_code == 0, done.output
    for line in (
        "train: rows of the shape preference",
        "train: pairs that stand there before (first: pairs.jsonl:2)",
        "train: pairs whose sides are equal (first: pairs.jsonl:3)",
        "train: pairs with an end token typed into an answer (first: pairs.jsonl:4)",
        "valid: pairs whose prompt also occurs in train",
    ):
        assert line in done.output


def test_a_file_that_mixes_pairs_with_other_rows_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    rows = [{"prompt": "a", "chosen": "b", "rejected": "c"}, {"prompt": "a", "completion": "b"}]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    done = CliRunner().invoke(app, ["data", "check", str(path)])
    assert done.exit_code != 0 and "1 of 2 rows are no preference pairs" in str(done.exception or done.output)


def test_published_pairs_are_checked(shared: Path) -> None:
    path = shared / "data" / "preferences" / "dpo_en_demo.json"
    if not path.is_file():
        pytest.skip("no published pairs here")
    pairs = read_pairs(path)
    found = flaws(pairs)
    assert set(found) == {Flaw.REPEATED, Flaw.BACKSLASH_N}
    assert all(pairs[index] in pairs[:index] or pairs[index].source for index in found[Flaw.REPEATED])
    assert len(found[Flaw.REPEATED]) == len(pairs) - len({(each.prompt, each.chosen, each.rejected) for each in pairs})
