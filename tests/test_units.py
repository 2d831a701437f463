"""Units, conversions, phrasings and the split that holds out triples."""

from __future__ import annotations

import json
from fractions import Fraction
from pathlib import Path

import pytest

from ramify.base import rng
from ramify.base.errors import TaskError
from ramify.tasks import conversions
from ramify.tasks.conversions import PHRASINGS, Conversion, convert, questions, unit_pairs
from ramify.tasks.units import DIMENSIONS, UNITS, find_unit


def test_the_table_is_large_and_unambiguous() -> None:
    spellings = [spelling for unit in UNITS for spelling in unit.spellings]
    assert len(UNITS) >= 60
    assert len(DIMENSIONS) >= 8
    assert len(spellings) == len(set(spellings))
    assert len({unit.symbol for unit in UNITS}) == len(UNITS)
    assert {unit.dimension for unit in UNITS} == set(DIMENSIONS)


@pytest.mark.parametrize(
    ("quantity", "source", "target", "expected"),
    [
        (10, "h", "second", Fraction(36_000)),
        (4, "fluid ounce", "millilitre", Fraction("118.29411825")),
        (2, "G", "MB", Fraction(2000)),
        (3, "KB", "byte", Fraction(3000)),
        (1, "byte", "bit", Fraction(8)),
        (6, "metric ton", "kg", Fraction(6000)),
        (12, "month", "days", Fraction("365.2422")),
        (1, "century", "year", Fraction(100)),
        (90, "kmh", "m/s", Fraction(25)),
        (5, "cc", "mL", Fraction(5)),
        (1, "m**3", "litre", Fraction(1000)),
        (60, "mi/h", "ft/s", Fraction(88)),
        (8, "km", "mile", Fraction(8000) / Fraction("1609.344")),
        (1, "kWh", "kilojoule", Fraction(3600)),
        (1, "acre", "square foot", Fraction(43_560)),
        (7, "gallon", "pint", Fraction(56)),
    ],
)
def test_exact_sizes(quantity: int, source: str, target: str, expected: Fraction) -> None:
    assert convert(quantity, source, target).exact == expected


def test_unknown_and_mixed_units_are_refused() -> None:
    with pytest.raises(TaskError, match="did you mean 'furlong'"):
        find_unit("furlon")
    with pytest.raises(TaskError, match="measures length, but 'kg' measures mass"):
        convert(1, "m", "kg")
    with pytest.raises(TaskError, match="at least 1"):
        convert(0, "m", "cm")


def test_phrasings() -> None:
    assert len(PHRASINGS) >= 40
    assert len(set(PHRASINGS)) == len(PHRASINGS)
    for phrasing in PHRASINGS:
        assert all(phrasing.count(field) == 1 for field in ("{n}", "{a}", "{b}"))
    assert any(phrasing.rstrip("?. ").endswith(("{n}", "{n} units")) for phrasing in PHRASINGS)


def test_questions_are_seeded_and_different() -> None:
    first = questions(300, seed=1, split="train")
    assert first == questions(300, seed=1, split="train")
    assert first != questions(300, seed=2, split="train")
    assert first[:40] == questions(40, seed=1, split="train")
    assert len({problem.prompt[-1].content for problem in first}) == 300
    assert len({problem.id for problem in first}) == 300


def test_train_and_valid_share_no_triple_and_no_question() -> None:
    train, valid = (questions(1500, seed=0, split=split) for split in ("train", "valid"))
    assert not {p.prompt for p in train} & {p.prompt for p in valid}
    drawn = rng.generator("test", 0)
    triples = {split: {conversions.draw(drawn, split) for _ in range(1500)} for split in ("train", "valid")}
    assert not triples["train"] & triples["valid"]


def test_about_one_triple_in_ten_is_held_out_and_quantity_one_never_is() -> None:
    held_out = [Conversion(q, a, b).split == "valid" for a, b in unit_pairs() for q in range(2, 1000, 37)]
    assert 0.08 < sum(held_out) / len(held_out) < 0.12
    assert all(Conversion(1, a, b).split == "train" for a, b in unit_pairs())


def test_the_spelling_does_not_move_a_triple_to_the_other_split() -> None:
    for quantity in range(2, 60):
        splits = {convert(quantity, a, b).split for a in ("l", "litre", "liter") for b in ("cc", "ml", "cm**3")}
        assert len(splits) == 1


def test_small_quantities_only() -> None:
    problems = questions(200, seed=0, split="valid", max_quantity=10)
    assert len(problems) == 200
    with pytest.raises(TaskError, match="raise max_quantity"):
        questions(100_000, seed=0, split="valid", max_quantity=2)


def test_worked_chain_by_hand() -> None:
    assert (
        conversions.worked(convert(347, "ft", "m"))
        == "1 ft=0.305 m; 300:91.5; 40:+12.2=103.7; 7:+2.1=105.8; <answer>105.8</answer>"
    )
    assert conversions.worked(convert(50, "h", "min")) == "1 h=60 min; 50:3000; <answer>3000</answer>"
    assert (
        conversions.worked(convert(409, "floz", "ml"))
        == "1 floz=29.6 ml; 400:11840; 9:+270=12110; <answer>12110</answer>"
    )


def test_every_chain_ends_near_the_exact_answer() -> None:
    """Rounding the factor costs at most 0.5 %; each later product at most half a unit in the last of three digits."""
    generator = rng.generator("test", 1)
    for _ in range(3000):
        conversion = conversions.draw(generator, "train")
        _, result = conversions.chain(conversion)
        assert abs(float(result) / float(conversion.exact) - 1) < 0.0151
        assert abs(round(float(result), 3) - round(conversion.answer, 3)) < 0.05 * round(conversion.answer, 3)


def test_running_sums_add_up() -> None:
    generator = rng.generator("test", 2)
    for _ in range(500):
        steps = conversions.chain(conversions.draw(generator, "train"))[0].split("; ")[1:]
        total = Fraction(steps[0].strip(";").split(":")[1])
        for step in steps[1:]:
            added, summed = step.strip(";").split(":+")[1].split("=")
            total += Fraction(added)
            assert Fraction(summed) == total


@pytest.mark.parametrize(("value", "text"), [(0.0625, "0.0625"), (105.84, "105.8"), (482_700, "482700"), (60.0, "60")])
def test_short_numbers(value: float, text: str) -> None:
    assert conversions.short(value) == text


def test_pairs_file(tmp_path: Path) -> None:
    problems = questions(20, seed=3, split="train")
    conversions.write_pairs(problems, tmp_path / "train.json")
    rows = json.loads((tmp_path / "train.json").read_text(encoding="utf-8"))
    assert rows == [[problem.prompt[0].content, problem.answer] for problem in problems]
    assert all(isinstance(answer, float) for _, answer in rows)
