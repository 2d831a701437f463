"""A conversation at a terminal: what each line does to it, how seeds follow, what is kept when it gets too long."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ramify.base.config import Sampling
from ramify.base.errors import ConfigError, LengthError
from ramify.base.types import Conversation, Message, Stop
from ramify.data.source import Source
from ramify.data.sources import read_rows
from ramify.serve.session import (
    COMMANDS,
    Exchange,
    Question,
    Session,
    Then,
    act,
    answered,
    complete,
    fit,
    settings_of,
    training_row,
)

EMPTY = Session(Sampling(temperature=0.7, max_new_tokens=8), seed=3)


def talked(*questions: str, stop: Stop | None = Stop.EOS) -> Session:
    session = EMPTY
    for each in questions:
        session = answered(session, Question(each), f"answer to {each}", stop)
    return session


def one_token_a_letter(prompt: Conversation) -> tuple[int, ...]:
    return tuple(ord(letter) for turn in prompt for letter in turn.content)


def test_a_line_is_a_question_and_two_slashes_are_one() -> None:
    assert act(EMPTY, "  How many?  ").question == Question("How many?")
    assert act(EMPTY, "How many?").then is Then.ASK
    assert act(EMPTY, "//etc/hosts?").question == Question("/etc/hosts?")
    blank = act(EMPTY, "   ")
    assert (blank.then, blank.question, blank.session) == (Then.NOTHING, None, EMPTY)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("/retyr", "unknown command '/retyr'; did you mean '/retry'?"),
        ("/set temprature 1", "unknown setting 'temprature'; did you mean 'temperature'?"),
        ("/set temperature", "a value is missing"),
        ("/set temperature hot", "sample.temperature = 'hot'"),
        ("/set temperature -1", "sample.temperature = -1"),
        ("/set temperature 0.00001", "0 (greedy) or at least 0.0001"),
        ("/set top_p 2", "sample.top_p = 2"),
        ("/set max_new_tokens 0", "sample.max_new_tokens = 0"),
        ("/set stop [", "not valid YAML"),
        ("/set seed 1.5", "a whole number is needed"),
        ("/set seed yes", "a whole number is needed"),
        ("/set n 4", "a question has one answer here"),
        ("/set live 4", "completed at once"),
        ("/retry", "nothing was asked yet"),
        ("/undo", "nothing was asked yet"),
        ("/undo twice", "takes nothing behind it"),
        ("/save", "ends in .jsonl"),
        ("/save talk.txt", "ends in .jsonl"),
        ("/save talk\0.jsonl", "'talk\\x00.jsonl': the file's name"),
    ],
)
def test_what_cannot_be_done_is_refused_with_the_reason(line: str, message: str) -> None:
    with pytest.raises(ConfigError) as refused:
        act(EMPTY, line)
    assert message in str(refused.value)


def test_every_setting_of_a_draw_can_be_set_or_is_refused_with_a_reason() -> None:
    others = {
        "temperature": "0.4",
        "top_p": "0.9",
        "top_k": "40",
        "min_p": "0.05",
        "repetition_penalty": "1.1",
        "max_new_tokens": "64",
        "stop": "[END, Q]",
        "seed": "11",
    }
    assert set(others) == {*Sampling.model_fields, "seed"} - {"n", "live"}
    session = EMPTY
    for name, value in others.items():
        session = act(session, f"/set {name} {value}").session
    assert session.seed == 11 and session.settings.stop == ("END", "Q")
    assert session.settings.model_dump(exclude={"n", "live", "stop"}) == {
        name: float(value) if "." in value else int(value)
        for name, value in others.items()
        if name not in ("stop", "seed")
    }
    assert act(EMPTY, "/set temperature=0").session == act(EMPTY, "/set  temperature  0").session
    assert act(EMPTY, "/set stop 3").session.settings.stop == ("3",)
    assert act(EMPTY, "/set stop end of it").session.settings.stop == ("end of it",)
    assert act(session, "/set stop []").session.settings.stop == ()
    assert "top_k 40" in act(session, "/set").text and "live" not in settings_of(session)


def test_seeds_follow_from_the_session_the_turn_and_the_attempt() -> None:
    first = EMPTY.seed_of(Question("a"))
    assert first == EMPTY.seed_of(Question("b")) and 0 <= first < 2**31
    seeds = {
        session.seed_of(Question("a", attempt))
        for session in (EMPTY, replace(EMPTY, seed=4), talked("a"), talked("a", "b"))
        for attempt in range(3)
    }
    assert len(seeds) == 12
    again = act(talked("a", "b"), "/retry")
    assert again.session.exchanges == talked("a").exchanges and again.question == Question("b", 1)
    once_more = act(answered(again.session, again.question, "x", Stop.EOS), "/retry")
    assert once_more.question == Question("b", 2)
    assert act(act(talked("a", "b"), "/undo").session, "b").question == Question("b", 0)
    cold = act(act(talked("a"), "/set temperature 0").session, "/retry")
    assert "stays the same" in cold.text


def test_the_system_turn_is_the_models_own_or_the_users_or_none() -> None:
    assert EMPTY.conversation("q") == (Message("user", "q"),)
    own = act(EMPTY, "/system Be brief.").session
    assert own.conversation("q")[0] == Message("system", "Be brief.")
    assert act(own, "/system").text == "system turn: Be brief."
    none = act(own, "/system none").session
    assert none.conversation("q")[0] == Message("system", "")
    assert act(none, "/system own").session == EMPTY


def test_compare_is_about_the_text_the_last_question_or_the_next_one() -> None:
    with_text = act(talked("a"), "/compare b")
    assert (with_text.then, with_text.question, with_text.session) == (Then.COMPARE, Question("b"), talked("a"))
    last = act(talked("a", "b"), "/compare")
    assert (last.then, last.question, last.session) == (Then.COMPARE, Question("b"), talked("a"))
    waiting = act(EMPTY, "/compare")
    assert waiting.then is Then.NOTHING and waiting.session.comparing
    asked = act(act(waiting.session, "/set top_k 3").session, "c")
    assert asked.then is Then.COMPARE and not asked.session.comparing
    assert act(waiting.session, "/compare c") == act(waiting.session, "c")


def test_what_is_too_long_loses_its_oldest_turns_whole() -> None:
    session = talked("aaaa", "bbbb", "cccc")  # 4 + 14 letters an exchange
    settings = {"max_new_tokens": 8}
    assert session.settings.model_dump()["max_new_tokens"] == settings["max_new_tokens"]
    assert fit(session, Question("q"), one_token_a_letter, 100).dropped == 0
    assert fit(session, Question("q"), one_token_a_letter, 63).dropped == 0  # 3 × 18 + 1 + 8 tokens
    tight = fit(session, Question("q"), one_token_a_letter, 62)
    assert tight.dropped == 1 and tight.ids == one_token_a_letter(session.conversation("q", 1))
    assert fit(session, Question("q"), one_token_a_letter, 12).dropped == 3
    short = fit(session, Question("qqqqqqqqq"), one_token_a_letter, 12)
    assert (short.dropped, short.room) == (3, 3)
    with pytest.raises(LengthError, match="12 tokens, the model takes 12"):
        fit(session, Question("q" * 12), one_token_a_letter, 12)
    with_system = replace(session, system="s" * 10)
    assert fit(with_system, Question("q"), one_token_a_letter, 21).ids == one_token_a_letter(
        (Message("system", "s" * 10), Message("user", "q"))
    )


def test_an_answer_never_needs_more_than_half_of_the_room() -> None:
    wide = replace(talked("aaaa"), settings=Sampling(max_new_tokens=1000))
    fitted = fit(wide, Question("q"), one_token_a_letter, 60)
    assert (fitted.dropped, fitted.room) == (0, 60 - len(fitted.ids))


def test_lines_become_one_text() -> None:
    assert complete(["one"]) == "one"
    assert complete(["one\\"]) is None
    assert complete(["one\\", "two\\", "three"]) == "one\ntwo\nthree"
    assert complete(['"""']) is None
    assert complete(['"""', "a\\", "", "b"]) is None
    assert complete(['"""', "a\\", "", "b", '"""']) == "a\\\n\nb"
    assert complete(['"""a', 'b"""']) == "a\nb"
    block = complete(['"""', "/usr/bin", '"""'])
    assert block is not None and act(EMPTY, block).question == Question("/usr/bin")


def test_rows_are_read_by_the_reader_of_training_data(tmp_path: Path) -> None:
    session = answered(talked("a", "b"), Question("c"), "cut o", Stop.LENGTH)
    session = answered(session, Question("d"), "", Stop.EOS)
    session = answered(session, Question("e"), "stopp", None)
    session = answered(session, Question("f"), "ends.", Stop.STOP_STRING)
    rows = [training_row(session, None), training_row(replace(session, system="Be brief."), "Be polite.")]
    rows += [training_row(session, "Be polite."), training_row(replace(session, system=""), "Be polite.")]
    file = tmp_path / "talks.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    read = read_rows(Source(str(file)))
    assert read.shape == "messages"
    trained = [(each.prompt[-1].content, each.completions[0].text) for each in read.examples]
    assert trained == [("a", "answer to a"), ("b", "answer to b"), ("f", "ends.")] * 4
    systems = [each.prompt[0].content for each in read.examples[::3]]
    assert systems == ["a", "Be brief.", "Be polite.", "a"]
    assert read.examples[2].prompt == (*session.conversation("f")[:10], Message("user", "f"))


def test_nothing_is_saved_where_there_is_nothing_to_imitate() -> None:
    for session in (EMPTY, talked("a", stop=Stop.LENGTH), talked("a", stop=None)):
        with pytest.raises(ConfigError, match="nothing to save"):
            training_row(session, None)


LINES = st.one_of(
    st.text(max_size=30),
    st.sampled_from([usage.split()[0] for usage in COMMANDS]),
    st.builds(
        "/set {} {}".format,
        st.sampled_from([*Sampling.model_fields, "seed", "sead"]),
        st.one_of(st.text(max_size=6), st.integers().map(str), st.floats().map(str)),
    ),
    st.text(max_size=10).map(lambda text: f"/system {text}"),
    st.text(max_size=10).map(lambda text: f"/compare {text}"),
    st.text(max_size=10).map(lambda text: f"/save {text}.jsonl"),
)


@given(st.lists(LINES, max_size=12), st.data())
def test_any_lines_leave_a_session_that_goes_on_and_can_be_played_again(lines: list[str], data: st.DataObject) -> None:
    endings = [data.draw(st.sampled_from([*Stop, None])) for _ in lines]
    first, second = ([*played(lines, endings)] for _ in range(2))
    assert first == second
    for before, session in zip([EMPTY, *first], first, strict=False):
        assert abs(len(session.exchanges) - len(before.exchanges)) <= max(1, len(before.exchanges))
        assert session.settings == Sampling.model_validate(session.settings.model_dump())
        turns = session.conversation("q")[session.system is not None :]
        assert [turn.role for turn in turns] == ["user", "assistant"] * len(session.exchanges) + ["user"]
        assert settings_of(session)["seed"] == str(session.seed)
        if any(each.whole for each in session.exchanges):
            assert json.loads(json.dumps(training_row(session, None))) == training_row(session, None)


def played(lines: list[str], endings: list[Stop | None]) -> list[Session]:
    """The session behind each line, every answer naming its seed."""
    session, found = EMPTY, []
    for line, ending in zip(lines, endings, strict=True):
        try:
            outcome = act(session, line)
        except ConfigError:
            continue
        session = outcome.session
        if outcome.question is not None:
            assert outcome.then in (Then.ASK, Then.COMPARE) and outcome.question.text
            text = f"said with {session.seed_of(outcome.question)}"
            session = answered(session, outcome.question, text, ending)
            assert session.exchanges[-1] == Exchange(outcome.question.text, text, ending, outcome.question.attempt)
        found.append(session)
    return found


@given(st.lists(st.text(min_size=1, max_size=20), min_size=1, max_size=8), st.integers(2, 80), st.integers(1, 40))
def test_what_fits_is_the_longest_end_of_the_conversation(asked: list[str], limit: int, wanted: int) -> None:
    session = replace(talked(*asked), settings=Sampling(max_new_tokens=wanted))
    try:
        found = fit(session, Question("q"), one_token_a_letter, limit)
    except LengthError:
        assert limit == 1
        return
    free = min(wanted, limit // 2)
    assert found.ids == one_token_a_letter(session.conversation("q", found.dropped))
    assert 1 <= found.room <= wanted and len(found.ids) + found.room <= limit
    assert found.dropped == len(asked) or len(found.ids) + free <= limit
    if found.dropped:
        assert len(one_token_a_letter(session.conversation("q", found.dropped - 1))) + free > limit


@given(st.text())
def test_a_text_in_three_quotes_is_asked_as_it_is(text: str) -> None:
    if '"""' in text or text.endswith('"') or not text.strip() or len(text.splitlines()) != text.count("\n") + 1:
        return
    whole = complete(['"""', *text.split("\n"), '"""'])
    assert whole is not None
    assert act(EMPTY, whole).question == Question(text.strip())
