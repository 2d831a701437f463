"""The chat of the page without a browser: turns, stopping, judging, and several tabs at once."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from page_setup import Script, page_of, voices_of

from ramify.base.config import Sampling
from ramify.base.errors import ConfigError
from ramify.base.records import read_jsonl
from ramify.base.types import Message, Stop
from ramify.serve.page.chat import Chat, View
from ramify.serve.page.compare import Comparison
from ramify.serve.page.controls import manner
from ramify.serve.page.feedback import Feedback
from ramify.serve.page.sessions import Session, Sessions
from ramify.serve.page.talk import Manner

WARM = Manner(sampling=Sampling(temperature=0.7, max_new_tokens=20), seed=5)


def rows_of(path: Path) -> list[dict[str, object]]:
    return [row for _, row in read_jsonl(path)] if path.exists() else []


def made(folder: Path, *scripts: Script, system: str | None = None) -> Chat:
    return Chat(voices_of(*scripts, system=system), Feedback(folder / "feedback.jsonl"))


def said(chat: Chat, session: Session, question: str, model: str = "a", how: Manner = WARM) -> View:
    return list(chat.send(session, question, model, how))[-1]


def test_a_conversation_grows_and_the_model_sees_all_of_it(tmp_path: Path) -> None:
    script, session = Script("a", "it is {seed}"), Session()
    chat = made(tmp_path, script, system="Be brief.")
    views = list(chat.send(session, "how  much?\n", "a", WARM))
    assert views[0].status == "opening a …" and views[0].box == "" and views[0].running
    assert views[-1].turns == (("user", "how  much?\n"), ("assistant", "it is 5")) and not views[-1].running
    assert next(turn for view in views for turn in view.turns[1:]) == ("assistant", "it")
    said(chat, session, "and now?")
    asked = "".join(map(chr, script.requests[1].ids))
    assert asked == "system: Be brief.\nuser: how  much?\n\nassistant: it is 5\nuser: and now?\n"
    own = Manner("Answer in rhyme.", WARM.sampling, 5)
    said(chat, Session(), "hello", how=own)
    assert "".join(map(chr, script.requests[2].ids)) == "system: Answer in rhyme.\nuser: hello\n"


def test_asking_again_takes_the_next_seed_and_keeps_the_old_answer_where_there_is_no_new_one(tmp_path: Path) -> None:
    script, session = Script("a", "it is {seed}"), Session()
    chat = made(tmp_path, script)
    said(chat, session, "how much?")
    assert list(chat.retry(session, "a", WARM))[-1].turns[1] == ("assistant", "it is 6")
    last = list(chat.retry(session, "missing", WARM))[-1]
    assert last.failed and "no such model" in last.status and last.turns[1] == ("assistant", "it is 6")
    assert last.box is None
    assert chat.undo(session).box == "how much?" and not session.answers
    assert chat.undo(session).failed
    chat.clear(session)
    assert said(chat, session, "how much?").turns[1] == ("assistant", "it is 5")


def test_without_a_seed_every_answer_gets_another_one(tmp_path: Path) -> None:
    script, session = Script("a", "yes"), Session()
    chat = made(tmp_path, script)
    for _ in range(8):
        said(chat, session, "?", how=Manner(sampling=WARM.sampling))
    assert len({request.seed for request in script.requests}) == 8


def test_what_is_not_asked_is_not_sent(tmp_path: Path) -> None:
    script = Script("a", "yes")
    view = said(made(tmp_path, script), Session(), " \n")
    assert view.failed and view.status == "nothing was asked" and not script.requests


def test_stop_keeps_what_was_written_and_frees_the_model(tmp_path: Path) -> None:
    gate = threading.Event()
    script, session = Script("a", "one two three", gate), Session()
    chat = made(tmp_path, script)
    views = chat.send(session, "count", "a", WARM)
    assert next(view for view in views if len(view.turns) == 2).turns[1] == ("assistant", "one")
    refused = said(chat, session, "more")
    assert refused.failed and "is being written" in refused.status and refused.box == "more"
    session.stop()
    last = list(views)[-1]
    assert last.turns == (("user", "count"), ("assistant", "one")) and last.status.endswith("stopped")
    assert script.cancelled == 1 and session.answers[0].stop is None
    gate.set()
    assert not said(chat, session, "go on").failed


def test_a_question_that_was_stopped_before_the_first_word_goes_back_into_the_box(tmp_path: Path) -> None:
    chat, session = made(tmp_path, Script("a", "one two")), Session()
    views = chat.send(session, "count", "a", WARM)
    next(views)
    session.stop()
    last = list(views)[-1]
    assert last.failed and last.box == "count" and last.turns == () and not session.answers


def test_the_oldest_exchanges_make_room(tmp_path: Path) -> None:
    script, session = Script("a", "yes", max_length=120), Session()
    chat = made(tmp_path, script)
    for number in range(6):
        last = said(chat, session, f"question {number} of several")
    assert "oldest exchanges" in last.status and len(last.turns) == 12
    assert max(len(request.ids) + request.settings.max_new_tokens for request in script.requests) <= 120
    assert "".join(map(chr, script.requests[-1].ids)).endswith("user: question 5 of several\n")
    too_long = said(chat, session, "x" * 200)
    assert too_long.failed and "120" in too_long.status and too_long.box == "x" * 200


def test_tabs_share_nothing(tmp_path: Path) -> None:
    chat, sessions = made(tmp_path, Script("a", "it is {seed}")), Sessions()

    def talks(number: int) -> tuple[tuple[str, str], ...]:
        session = sessions.of(f"tab {number}")
        for turn in range(3):
            view = said(chat, session, f"{number}.{turn}")
        return view.turns

    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(talks, range(8)))
    for number, turns in enumerate(found):
        assert [text for role, text in turns if role == "user"] == [f"{number}.{turn}" for turn in range(3)]
    assert len(sessions) == 8
    sessions.forget("tab 3")
    assert len(sessions) == 7 and not sessions.of("tab 3").answers


def test_a_tab_that_is_closed_frees_its_model(tmp_path: Path) -> None:
    script, sessions = Script("a", "one two", gate=threading.Event()), Sessions()
    views = made(tmp_path, script).send(sessions.of("tab"), "count", "a", WARM)
    next(view for view in views if len(view.turns) == 2)
    sessions.forget("tab")
    list(views)
    assert script.cancelled == 1


def test_a_bad_answer_and_its_correction_become_a_row_and_the_conversation_goes_on_from_there(tmp_path: Path) -> None:
    chat, session = made(tmp_path, Script("a", "it is {seed}"), system="Be brief."), Session()
    said(chat, session, "how much?")
    panel = chat.judge(session, good=False)
    assert panel.judged is not None and panel.draft == "it is 5" and not rows_of(tmp_path / "feedback.jsonl")
    same = chat.keep(session, "it is 5")
    assert same.failed and "same" in same.note
    assert chat.keep(session, "  ").failed
    done = chat.keep(session, "It is six.")
    assert done.judged is None and "1 row kept" in done.note
    (row,) = rows_of(tmp_path / "feedback.jsonl")
    assert row["prompt"] == [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "how much?"},
    ]
    assert (row["chosen"], row["rejected"], row["how"]) == ("It is six.", "it is 5", "edited")
    assert (row["chosen_by"], row["rejected_by"]) == ("user", "a")
    assert session.history[1] == Message("assistant", "It is six.")
    assert chat.keep(session, "again").failed


def test_another_answer_may_be_drawn_instead_of_written(tmp_path: Path) -> None:
    script, session = Script("a", "it is {seed}"), Session()
    chat = made(tmp_path, script)
    said(chat, session, "how much?")
    chat.judge(session, good=True)
    panels = list(chat.draw(session, "a", WARM))
    assert panels[-2].draft == "it is 6" and panels[-1].draft is None
    chat.keep(session, "it is 6")
    (row,) = rows_of(tmp_path / "feedback.jsonl")
    assert (row["chosen"], row["rejected"], row["how"], row["rejected_by"]) == (
        "it is 5",
        "it is 6",
        "drawn again",
        "a",
    )
    assert session.history[1].content == "it is 5"
    chat.judge(session, good=True)
    cold = Manner(sampling=Sampling(temperature=0))
    (refused,) = chat.draw(session, "a", cold)
    assert refused.failed and "temperature 0" in refused.note


def test_opposite_judgements_of_two_answers_to_one_question_become_a_row(tmp_path: Path) -> None:
    chat, session = made(tmp_path, Script("a", "it is {seed}")), Session()
    said(chat, session, "how much?")
    chat.judge(session, good=False)
    list(chat.retry(session, "a", WARM))
    panel = chat.judge(session, good=True)
    assert "1 row kept" in panel.note
    (row,) = rows_of(tmp_path / "feedback.jsonl")
    assert (row["chosen"], row["rejected"]) == ("it is 6", "it is 5")
    said(chat, session, "and another?")
    chat.judge(session, good=False)
    assert len(rows_of(tmp_path / "feedback.jsonl")) == 1  # another prompt is nothing to hold it against


def test_an_answer_that_was_cut_off_is_no_good_example(tmp_path: Path) -> None:
    chat, session = made(tmp_path, Script("a", "one two three")), Session()
    short = Manner(sampling=Sampling(max_new_tokens=2))
    assert "cut off" in said(chat, session, "count", how=short).status
    assert session.answers[0].stop is Stop.LENGTH
    assert chat.judge(session, good=True).failed
    assert not chat.judge(session, good=False).failed
    assert chat.keep(session, "one two three").judged is None
    assert rows_of(tmp_path / "feedback.jsonl")[0]["chosen"] == "one two three"


def test_two_models_answer_one_prompt_and_the_better_one_becomes_the_chosen(tmp_path: Path) -> None:
    feedback = Feedback(tmp_path / "feedback.jsonl")
    left, right = Script("a", "it is {seed}"), Script("b", "about {seed} or so")
    comparison, session = Comparison(voices_of(left, right), feedback), Session()
    sides = list(comparison.ask(session, "how much?", ("a", "b"), WARM))
    assert sides[-1].texts == ("it is 5", "about 5 or so") and not sides[-1].running
    assert "is better: 1 row kept" not in sides[-1].status
    assert "b was better" in comparison.prefer(session, left=False).status
    (row,) = rows_of(feedback.path)
    assert (row["chosen"], row["rejected"], row["how"]) == ("about 5 or so", "it is 5", "side by side")
    assert comparison.prefer(session, left=False).failed  # once is enough
    twice = list(comparison.ask(session, "how much?", ("a", "a"), WARM))[-1]
    assert twice.texts == ("it is 6", "it is 7")


def test_a_comparison_stops_on_both_sides(tmp_path: Path) -> None:
    scripts = [Script(name, "one two", gate=threading.Event()) for name in "ab"]
    comparison, session = Comparison(voices_of(*scripts), Feedback(tmp_path / "f")), Session()
    sides = comparison.ask(session, "count", ("a", "b"), WARM)
    seen = next(each for each in sides if each.texts and any(each.texts))
    session.stop()
    last = list(sides)[-1]
    assert seen.running and last.texts is not None and all(script.cancelled == 1 for script in scripts)
    assert "stopped" in last.notes[0]
    assert comparison.prefer(session, left=True).failed  # neither came to its end


def test_a_model_is_opened_when_the_choice_changes_and_that_is_said(tmp_path: Path) -> None:
    chat = made(tmp_path, Script("a", "yes"), Script("b", "no"))
    assert [text for text, _ in chat.open("a")] == [
        "opening a …",
        "a is ready: up to 2000 tokens of prompt and answer",
    ]
    assert len(list(chat.open("a"))) == 1
    text, failed = list(chat.open("missing"))[-1]
    assert failed and text == "missing: no such model"


def test_only_listed_models_are_opened_where_typing_is_off(tmp_path: Path) -> None:
    page = page_of(tmp_path, Script("a", "yes"), typed=False)
    assert page.choices() == ["a", "nano"] and page.allowed(" a ") == "a"
    with pytest.raises(ConfigError, match="only the models of the list"):
        page.allowed("../../secret")
    assert page_of(tmp_path, Script("a", "yes")).allowed("repo, Q4") == "repo, Q4"
    with pytest.raises(ConfigError, match="choose a model"):
        page.allowed(None)


def test_the_controls_mean_settings(tmp_path: Path) -> None:
    how = manner(" Be brief. ", 64, 0.4, 0.9, 40, 0.05, 1.1, 7)
    assert how.system == "Be brief." and how.seed == 7
    assert how.sampling == Sampling(
        max_new_tokens=64, temperature=0.4, top_p=0.9, top_k=40, min_p=0.05, repetition_penalty=1.1
    )
    with pytest.raises(ConfigError, match="temperature"):
        manner("", 64, 0.00001, 1.0, 0, 0.0, 1.0, None)
