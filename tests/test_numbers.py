"""Numbers in answers: how they are read, and when they are right."""

from __future__ import annotations

import json
import math
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ramify.base.records import json_line
from ramify.base.types import Message, Problem, Reason, Sample, Stop
from ramify.tasks.numbers import Parsed, correct, judge, parse_answer, parse_number, write_number

READ = [
    ("6000", 6000.0, ()),
    (" 6000 ", 6000.0, ()),
    ("-3.5", -3.5, ()),
    ("+3.5", 3.5, ()),
    ("\u22123.5", -3.5, ()),
    (".5", 0.5, ()),
    ("12.", 12.0, ()),
    ("0", 0.0, ()),
    ("1,000", 1000.0, ("thousands_separator",)),
    ("12,345,678.5", 12345678.5, ("thousands_separator",)),
    ("1 000", 1000.0, ("thousands_separator",)),
    ("1\u202f000", 1000.0, ("thousands_separator",)),
    ("1_000", 1000.0, ("thousands_separator",)),
    ("6 kg", 6.0, ("unit_after_number",)),
    ("6kg", 6.0, ("unit_after_number",)),
    ("6 kg.", 6.0, ("unit_after_number",)),
    ("60 mi/h", 60.0, ("unit_after_number",)),
    ("60 miles per hour", 60.0, ("unit_after_number",)),
    ("5 m**3", 5.0, ("unit_after_number",)),
    ("5 cm^3", 5.0, ("unit_after_number",)),
    ("5 m3", 5.0, ("unit_after_number",)),
    ("5 m²", 5.0, ("unit_after_number",)),
    ("40%", 40.0, ("unit_after_number",)),
    ("20 °C", 20.0, ("unit_after_number",)),
    ("1e3", 1000.0, ("exponent",)),
    ("1.5E-3", 0.0015, ("exponent",)),
    ("2 × 10^3", 2000.0, ("exponent",)),
    ("2*10**3", 2000.0, ("exponent",)),
    ("2x10^{-1}", 0.2, ("exponent",)),
    ("$5", 5.0, ("currency",)),
    ("-$5.50", -5.5, ("currency",)),
    ("3/4", 0.75, ("fraction",)),
    ("1 1/2", 1.5, ("fraction",)),
    ("-1/8", -0.125, ("fraction",)),
    ("1/2 cup", 0.5, ("fraction", "unit_after_number")),
    ("= 6", 6.0, ("prefix",)),
    ("≈6.2 m", 6.2, ("prefix", "unit_after_number")),
    ("1,200 kg", 1200.0, ("thousands_separator", "unit_after_number")),
    ("1e400", math.inf, ("exponent", "not_finite")),
    ("inf", math.inf, ("not_finite",)),
    ("-Infinity", -math.inf, ("not_finite",)),
    ("+INF", math.inf, ("not_finite",)),
    ("\u2212inf", -math.inf, ("not_finite",)),
    ("5 m³", 5.0, ("unit_after_number",)),
]
UNREADABLE = [
    "", " ", "six", "kg", "1,00", "1,0000", "1,5", "1.2.3", "6 or 7", "6, 7", "2 + 2", "6-2", "10^3", "3/0", "/4",
    "--6", "6 kg and 5 g", "--nan", "+-inf", "\u2212\u2212inf", "-+Infinity", "\u0131nf",
    "6\nkg", "one two 3", "6 is the result of a very long calculation", "0x10", "<b>6</b>", "e5", ".",
    "-", "$",
]  # fmt: skip


@pytest.mark.parametrize(("text", "value", "notes"), READ)
def test_numbers_are_read_and_how_is_said(text: str, value: float, notes: tuple[str, ...]) -> None:
    assert parse_number(text) == Parsed(value, notes)


@pytest.mark.parametrize("text", UNREADABLE)
def test_what_is_no_number_is_not_guessed_at(text: str) -> None:
    assert parse_number(text) == Parsed(None)


def test_nan_is_read_as_an_answer_that_is_never_right() -> None:
    parsed = parse_number("nan")
    assert parsed.value is not None and math.isnan(parsed.value) and parsed.notes == ("not_finite",)
    assert not correct(math.nan, 1.0) and not correct(1.0, math.nan) and not correct(math.inf, math.inf)


@pytest.mark.parametrize(
    ("text", "value", "notes"),
    [
        ("<answer>6</answer>", 6.0, ()),
        ("so <answer> 6.5 </answer> it is", 6.5, ()),
        ("<answer>6", 6.0, ("unclosed_tag",)),
        ("<answer>1,000 g", 1000.0, ("thousands_separator", "unit_after_number", "unclosed_tag")),
        ("<answer>1</answer> <answer>2</answer>", 1.0, ()),
        ("<answer>x</answer> <answer>2</answer>", None, ()),
        ("<answer>6\nThe next question", None, ()),
        ("<answer></answer>", None, ()),
        ("<answer>", None, ()),
        ("6", None, ()),
        ("6</answer>", None, ()),
        ("<Answer>6</Answer>", None, ()),
        ("<answer><answer>6</answer>", None, ()),
        ("", None, ()),
    ],
)
def test_the_answer_is_what_the_first_tag_holds(text: str, value: float | None, notes: tuple[str, ...]) -> None:
    assert parse_answer(text) == Parsed(value, notes)


@given(st.text(max_size=60))
def test_reading_never_fails(text: str) -> None:
    for tried in (text, f"<answer>{text}", f"<answer>{text}</answer>", f"6{text}", f"1/{text}"):
        parse_answer(tried)
        parse_number(tried)


@given(st.text(alphabet="²³*^/.+-nainf 69", max_size=80))
def test_reading_never_fails_on_signs_exponents_and_what_is_not_finite(text: str) -> None:
    for tried in (text, f"6 {text}", f"6 {text}!"):
        parse_number(tried)


@pytest.mark.parametrize("part", ["²", "³", "²³", "^2", "*", "**3", "m²", "/", "(", "a ", "%"])
def test_a_long_unit_is_refused_quickly(part: str) -> None:
    began = time.process_time()
    assert parse_number(f"6 {part * 2000}!").value is None
    assert parse_number("9" * 2000 + f"\n{part}").value is None
    assert time.process_time() - began < 2


def test_very_long_numbers_are_read_quickly_and_are_never_right() -> None:
    for text in ("9" * 100_000, "1/" + "9" * 100_000, "9" * 100_000 + "/7", "1e" + "9" * 50, "1" + ",000" * 20_000):
        parsed = parse_number(text)
        assert parsed.value is not None
        assert not correct(parsed.value, 6.0)


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_python_and_the_grader_read_the_same_float(value: float) -> None:
    assert parse_number(repr(value)).value == value


@pytest.mark.parametrize(
    ("answer", "gold", "right"),
    [
        (6000, 5999.999999999999, True),
        (5701, 6000, True),
        (5700, 6000, False),  # exactly 5 % off: the rule is strict
        (6300, 6000, False),
        (6299.9, 6000, True),
        (-6000, 6000, False),
        (-95.1, -100, True),
        (0.126, 0.125, True),
        (0.133, 0.125, False),
        (0, 0, True),
        (0.0004, 0, True),
        (0.001, 0, False),
        (0.0004, 0.0004, True),
        (0.00041, 0.0004, True),
        (0.00045, 0.0004, False),
        (0, 0.0004, False),
        (0, 0.001, False),
        (1e308, 1e308, True),
        (1e308, 1e307, False),
        (-1e308, 1e308, False),
        (1e308, 5e-324, False),
        (5e-324, 5e-324, True),
    ],
)
def test_the_rule_of_rightness(answer: float, gold: float, right: bool) -> None:
    assert correct(answer, gold) is right


@given(st.floats(-1e9, 1e9), st.floats(-1e9, 1e9).filter(lambda gold: round(gold, 3) != 0), st.floats(0.001, 0.5))
def test_the_rule_is_the_published_one_wherever_that_can_be_met(answer: float, gold: float, tolerance: float) -> None:
    published = abs(round(answer, 3) - round(gold, 3)) < tolerance * abs(round(gold, 3))
    assert correct(answer, gold, tolerance) is published


@given(st.floats(allow_nan=False, allow_infinity=False), st.floats(1e-3, 0.5))
def test_a_gold_as_it_is_written_is_always_right(gold: float, tolerance: float) -> None:
    written = parse_answer(f"<answer>{write_number(gold)}</answer>")
    assert written.value is not None
    assert correct(written.value, gold, tolerance)


@given(st.floats(min_value=1e-3, max_value=1e9), st.integers(-4, 4))
def test_noise_in_a_gold_changes_nothing(gold: float, ulps: int) -> None:
    noisy = gold + ulps * math.ulp(gold)
    answer = float(write_number(gold))
    assert correct(answer, noisy)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (5999.999999999999, "6000"),
        (0.125, "0.125"),
        (105.8, "105.8"),
        (2 / 3, "0.667"),
        (-0.0, "0"),
        (0.0004, "0.0004"),
        (4e-07, "4e-07"),
        (80000, "80000"),
        (1e16, "1e+16"),
        (-2.5, "-2.5"),
    ],
)
def test_golds_are_written_short(value: float, text: str) -> None:
    assert write_number(value) == text


PROBLEM = Problem("p", (Message("user", "?"),), 6.0)


@pytest.mark.parametrize(
    ("text", "stop", "reason"),
    [
        ("<answer>6</answer>", Stop.EOS, Reason.CORRECT),
        ("<answer>6", Stop.LENGTH, Reason.CORRECT),
        ("<answer>7</answer>", Stop.STOP_STRING, Reason.WRONG),
        ("<answer>nan</answer>", Stop.EOS, Reason.WRONG),
        ("six", Stop.EOS, Reason.NO_ANSWER),
        ("six", Stop.STOP_STRING, Reason.NO_ANSWER),
        ("1 kg is", Stop.LENGTH, Reason.TRUNCATED),
    ],
)
def test_the_reason_says_how_it_ended(text: str, stop: Stop, reason: Reason) -> None:
    sample = Sample("p", 3, (), (), text, stop)
    verdict = judge(PROBLEM, sample, parse_answer(text), lambda value: correct(value, 6.0))
    assert (verdict.reason, verdict.sample_index, verdict.problem_id) == (reason, 3, "p")
    assert verdict.reward == (1.0 if reason is Reason.CORRECT else 0.0)


def test_a_verdict_on_nan_can_be_written_as_json() -> None:
    sample = Sample("p", 0, (), (), "<answer>nan</answer>", Stop.EOS)
    verdict = judge(PROBLEM, sample, parse_answer(sample.text), lambda value: correct(value, 6.0))

    def refuse(name: str) -> None:
        raise AssertionError(f"{name} is not JSON")

    assert json.loads(json_line(verdict), parse_constant=refuse)["answer"] == "nan"
