"""Pairs before training: read, rendered, grouped, cut into micro-batches whose sizes are exact."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from train_setup import make_config, model_folder, preferences_file
from transformers import AutoTokenizer

from ramify.base.config import RunConfig
from ramify.base.errors import ConfigError, DataError, LengthError
from ramify.base.types import Completion, Example, TokenSequence
from ramify.prompts.renderer import Renderer
from ramify.train.grouping import Groups, group_pairs
from ramify.train.material import RunData
from ramify.train.pairs import PairSet, read_preferences, render_pairs
from ramify.train.schedule import Schedule
from ramify.tree.pack import joint_batches, pack

__all__ = ["model_folder"]

PROMPTS = [np.array(ids, dtype=np.int32) for ids in ([1, 2, 3, 4], [1, 2, 3, 5, 6], [1, 2, 9, 9], [7], [1, 2, 3, 5])]
PROMPT_OF = (0, 3, 1, 0, 2, 4, 1, 1)


def items() -> st.SearchStrategy[list[list[TokenSequence]]]:
    """Groups of sequences of few letters, so that prefixes are shared, contained and repeated."""
    sequence = st.lists(st.integers(0, 2), max_size=8).map(lambda ids: TokenSequence(tuple(ids), (0.0,) * len(ids)))
    return st.lists(st.lists(sequence, min_size=1, max_size=3), max_size=9)


@given(items(), st.integers(1, 30))
def test_joint_batches_keep_items_whole_and_the_budget(many: list[list[TokenSequence]], budget: int) -> None:
    groups = joint_batches(many, budget)
    assert sorted(index for group in groups for index in group) == list(range(len(many)))
    sizes = [len(pack([one for index in group for one in many[index]]).input_ids) for group in groups]
    assert all(size <= budget or len(group) == 1 for size, group in zip(sizes, groups, strict=True))


@given(items(), st.integers(1, 30))
def test_a_batch_ends_only_where_the_next_item_does_not_fit(many: list[list[TokenSequence]], budget: int) -> None:
    """Sizes are exact: with the first item of the next batch it would really be too large."""
    groups = joint_batches(many, budget)
    for group, following in pairwise(groups):
        joined = [one for index in [*group, following[0]] for one in many[index]]
        assert len(pack(joined).input_ids) > budget


def test_grouping_by_hand() -> None:
    """Prefix: 1234 | 1235 | 12356 are neighbours that share 3 of 4, 4 of 5; 1299 shares 2 of 4 only; 7 nothing."""

    def grouped(how: Any, most: int = 8) -> Groups:
        return group_pairs(PROMPTS, PROMPT_OF, how, most)

    assert grouped("none") == ((0,), (1,), (2,), (3,), (4,), (5,), (6,), (7,))
    assert grouped("prompt") == ((0, 3), (2, 6, 7), (4,), (1,), (5,))
    assert grouped("prefix") == ((0, 3, 5, 2, 6, 7), (4,), (1,))
    assert grouped("prefix", 3) == ((0, 3, 5), (2, 6, 7), (4,), (1,))
    assert grouped("prefix", 2) == ((0, 3), (5,), (2, 6, 7), (4,), (1,))  # three pairs of one prompt stay together


def test_grouping_decides_the_order_and_nothing_else(model_folder: Path, tmp_path: Path) -> None:
    """Every pair once an epoch; pairs of a prompt are neighbours unless `none` is asked."""
    rows = preferences_file(tmp_path / "t.jsonl", 6)
    for how in ("none", "prompt", "prefix"):
        config = make_config(model_folder, rows, tmp_path / "run", method="dpo", dpo={"group_by": how})
        train = rendered(config).train
        schedule = Schedule.of(train.groups, config.train, 1)
        order = [pair for step in range(schedule.per_epoch) for pair in schedule.indices(step)]
        assert sorted(order) == list(range(len(train)))
        prompts = [train.prompt_of[pair] for pair in order]
        changes = sum(one != other for one, other in pairwise(prompts))
        assert (changes == len(train.prompts) - 1) is (how != "none")


def rendered(config: RunConfig, valid: bool = False) -> RunData[PairSet]:
    renderer = Renderer(AutoTokenizer.from_pretrained(config.model), config.prompt)
    measured = read_preferences(config, "valid") if valid else []
    return render_pairs(config, renderer, 512, read_preferences(config, "train"), measured)


def test_pairs_are_rendered_as_examples_are_and_prompts_once(
    model_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = make_config(model_folder, preferences_file(tmp_path / "t.jsonl"), tmp_path / "run", method="dpo")
    texts: list[Any] = []
    plain = Renderer.text
    monkeypatch.setattr(Renderer, "text", lambda self, prompt: texts.append(prompt) or plain(self, prompt))
    found = rendered(config).train
    assert len(texts) == len(set(texts)) == len(found.prompts) == 4 and len(found) == 10
    renderer = Renderer(AutoTokenizer.from_pretrained(config.model), config.prompt)
    for pair, row in enumerate(read_preferences(config, "train")):
        both = renderer.sequences(Example(row.prompt, (Completion(row.chosen), Completion(row.rejected))))
        assert [found.chosen_sequence(pair), found.rejected_sequence(pair)] == both
    every = list(found.sequences())
    assert every == [found.sequence(number) for number in range(found.n_sequences)]
    assert found.tokens == sum(len(each.ids) for each in every)
    assert found.trained == sum(each.trained for each in every)
    assert found.longest == max(len(each.ids) for each in every)


def write(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


GOOD = {"prompt": "a question", "chosen": "yes", "rejected": "no"}


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ({"rejected": "yes"}, r"training pairs: 1 of 3 have equal sides \(first: .*t.jsonl:2\)"),
        ({"rejected": "yes<|im_end|>"}, r"training pairs: 1 of 3 have sides of the same tokens \(first: .*t.jsonl:2\)"),
        ({"rejected": " "}, r"training pairs: 1 of 3 have an empty side \(first: .*t.jsonl:2\)"),
        ({"rejected": "n<|im_end|>o"}, r"t.jsonl:2: the completion holds the stop token"),
    ],
)
def test_pairs_that_state_no_preference_are_refused(
    bad: dict[str, str], message: str, model_folder: Path, tmp_path: Path
) -> None:
    rows = write(tmp_path / "t.jsonl", [GOOD, {**GOOD, **bad}, GOOD])
    with pytest.raises(DataError, match=message):
        rendered(make_config(model_folder, rows, tmp_path / "run", method="dpo"))


def test_long_pairs_are_refused_with_counts_or_left_out(model_folder: Path, tmp_path: Path) -> None:
    """A pair goes as a whole, whichever side is too long."""
    long = [{**GOOD, "rejected": "no " * 300}, {**GOOD, "chosen": "yes " * 300}]
    rows = write(tmp_path / "t.jsonl", [GOOD, *long, GOOD])
    with pytest.raises(LengthError, match=r"training pairs: 2 of 4 are longer than 512 tokens; .*t.jsonl:3"):
        rendered(make_config(model_folder, rows, tmp_path / "run", method="dpo"))
    config = make_config(model_folder, rows, tmp_path / "run", method="dpo", data={"drop_long": True})
    found = rendered(config)
    assert len(found.train) == 2 and found.train.too_long == 2
    assert "2 training pairs were too long and left out" in found.notes(config)
    good, measured = preferences_file(tmp_path / "p.jsonl"), {"drop_long": True, "valid": str(rows)}
    config = make_config(model_folder, good, tmp_path / "run", method="dpo", data=measured)
    assert "2 validation pairs were too long and left out" in rendered(config, valid=True).notes(config)
    config = make_config(model_folder, rows, tmp_path / "run", method="dpo", data=measured)
    assert rendered(config, valid=True).facts["leaked"] == 2  # of the two that are left
    only = make_config(model_folder, write(tmp_path / "l.jsonl", long), tmp_path / "run", data={"drop_long": True})
    with pytest.raises(LengthError, match="2 of 2 are longer"):
        rendered(only)


def test_other_rows_are_refused_in_one_line(model_folder: Path, tmp_path: Path) -> None:
    mixed = write(tmp_path / "t.jsonl", [GOOD, {"prompt": "a", "completion": "b"}])
    with pytest.raises(DataError, match="1 of 2 rows are no preference pairs"):
        read_preferences(make_config(model_folder, mixed, tmp_path / "run"), "train")
    with pytest.raises(ConfigError, match="the task's own rows are no preference pairs"):
        read_preferences(make_config(model_folder, "task", tmp_path / "run"), "train")
    with pytest.raises(ConfigError, match=r"data.valid is not set"):
        read_preferences(make_config(model_folder, mixed, tmp_path / "run"), "valid")


def test_turns_mean_nothing_for_pairs_and_are_refused(model_folder: Path, tmp_path: Path) -> None:
    rows = write(tmp_path / "t.jsonl", [GOOD])
    config = make_config(model_folder, rows, tmp_path / "run", method="dpo", data={"turns": "last"})
    with pytest.raises(ConfigError, match=r"data\.turns = last: a preference pair has one answer a side"):
        read_preferences(config, "train")


def test_prompts_that_leak_into_validation_are_counted(model_folder: Path, tmp_path: Path) -> None:
    rows, valid = preferences_file(tmp_path / "t.jsonl", 4), preferences_file(tmp_path / "v.jsonl", 3, start=4)
    config = make_config(model_folder, rows, tmp_path / "run", method="dpo", data={"valid": str(valid)})
    found = rendered(config, valid=True)
    assert len(found.leaked) == 2 and found.facts["leaked"] == 2  # both pairs of prompt 4
    assert found.facts["valid_rows"] == 7


def test_validation_on_the_questions_of_the_evaluation_is_said(model_folder: Path, tmp_path: Path) -> None:
    """The best checkpoint is chosen on them, whatever file they come from."""
    rows, valid = preferences_file(tmp_path / "t.jsonl", 4), preferences_file(tmp_path / "v.jsonl", 3, start=9)
    asked = [json.loads(line) for line in valid.read_text().splitlines()][:2]
    problems = write(tmp_path / "p.jsonl", [{"id": "a", "prompt": asked[0]["prompt"], "answer": "1"}])
    for source, measured in ((str(problems), 3), ("task", 0)):
        config = make_config(
            *(model_folder, rows, tmp_path / "run"), data={"valid": str(valid)}, evaluate={"problems": source}
        )
        found = rendered(config, valid=True)
        assert found.measured == measured
        assert any("also those of `ramify eval`" in note for note in found.notes(config)) is (measured > 0)
