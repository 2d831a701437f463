"""`ramify chat` where it is used: in a terminal with its keys, on a dumb one, and in a pipe."""

from __future__ import annotations

import io
import json
import sys
import unicodedata
from pathlib import Path

import pytest
from chat_setup import Letters, Script, command, scripted
from cli_setup import ramify as run_ramify
from hypothesis import given
from hypothesis import strategies as st
from train_setup import model_folder

from ramify.base.config import Sampling
from ramify.base.errors import ConfigError, DataError, LengthError, ModelError
from ramify.base.types import Stop
from ramify.cli.chat_talk import Talk
from ramify.cli.chat_view import View
from ramify.cli.errors import BAD_INPUT, OK, report
from ramify.console import neutral
from ramify.data.source import Source
from ramify.data.sources import read_rows
from ramify.serve.session import Session
from ramify.serve.voice import Voice

__all__ = ["model_folder"]

INTERRUPT, END = "\x03", "\x04"
AT_PROMPT = INTERRUPT + "\n"
"""A Ctrl-C that comes between the prompt and the first wait for a key is noticed with the next key only."""


def test_an_answer_is_shown_while_it_is_written(tmp_path: Path) -> None:
    with scripted("gated", tmp_path) as terminal:
        terminal.expect("> ")
        terminal.type("Go on\n")
        terminal.expect("begun ")
        assert "ended" not in terminal.seen
        (tmp_path / "gate").touch()
        terminal.expect("ended\r\n")
        terminal.expect("> ")
        terminal.type("/quit\n")
        assert terminal.end() == 0


def test_ctrl_c_stops_the_answer_and_not_the_program(tmp_path: Path) -> None:
    with scripted("endless", tmp_path) as terminal:
        terminal.expect("> ")
        terminal.type("Count\n")
        terminal.expect("tick ")
        terminal.type(INTERRUPT)
        terminal.expect("stopped")
        terminal.expect("> ")
        terminal.type("/history\n")
        terminal.expect("Count\r\n")
        terminal.expect("assistant")
        terminal.expect("\r\ntick\r\n")
        terminal.expect("> ")
        terminal.type("And now\n")
        terminal.expect("second answer\r\n")
        terminal.expect("> ")
        terminal.type(END)
        assert terminal.end() == 0


def test_lines_are_edited_and_come_back(tmp_path: Path) -> None:
    pytest.importorskip("readline")
    with scripted("gated", tmp_path) as terminal:
        (tmp_path / "gate").touch()
        terminal.expect("> ")
        terminal.type("Go onn\x7f\n")
        terminal.expect("begun ended\r\n")
        terminal.expect("> ")
        terminal.type("\x1b[A\n")
        terminal.expect("begun ended\r\n")
        terminal.expect("> ")
        terminal.type("/hist\t\n")
        assert terminal.expect("> ").count("Go on\r\n") == 2
        terminal.type(END)
        assert terminal.end() == 0


def test_ctrl_c_before_the_first_word_takes_the_question_back(tmp_path: Path) -> None:
    with scripted("silent", tmp_path) as terminal:
        terminal.expect("> ")
        terminal.type("Hello\n")
        terminal.wait_for(tmp_path / "asked")
        terminal.type(INTERRUPT)
        terminal.expect("stopped")
        terminal.expect("> ")
        terminal.type("/undo\n")
        terminal.expect("nothing was asked yet")
        terminal.type("Again\n")
        terminal.expect("second answer\r\n")
        terminal.type("/quit\n")
        assert terminal.end() == 0


def test_ctrl_c_at_the_prompt_warns_and_a_second_one_ends(tmp_path: Path) -> None:
    with scripted("gated", tmp_path) as terminal:
        terminal.expect("> ")
        terminal.type("half a line" + AT_PROMPT)
        terminal.expect("Ctrl-C again ends")
        terminal.expect("> ")
        terminal.type("/help\n")  # something else in between: the next one is a first one again
        terminal.expect("/retry")
        terminal.expect("> ")
        terminal.type(AT_PROMPT)
        terminal.expect("Ctrl-C again ends")
        terminal.expect("> ")
        terminal.type(AT_PROMPT)
        assert terminal.end() == 0


def test_a_dumb_terminal_gets_no_escape_of_any_kind(tmp_path: Path) -> None:
    with scripted("rude", tmp_path, TERM="dumb") as terminal:
        terminal.expect("> ")
        terminal.type("Be rude\n")
        terminal.expect("letters: 東京 é\r\n")
        for line in ("/help", "/history", "/show", "/nonsense", "/compare again"):
            terminal.expect("> ")
            terminal.type(line + "\n")
        terminal.expect("the other answer")
        terminal.expect("> ")
        terminal.type(END)
        assert terminal.end() == 0
        controls = {each for each in terminal.seen if unicodedata.category(each) == "Cc"}
        assert controls <= {"\r", "\n", "\t"} and "\u202e" not in terminal.seen
        assert "clear \\x1b[2J" in terminal.seen and "turn \\u202e" in terminal.seen and "c1 \\x9b" in terminal.seen


def test_what_a_model_says_never_reaches_the_terminal_as_a_command(tmp_path: Path) -> None:
    with scripted("rude", tmp_path) as terminal:
        terminal.expect("> ")
        terminal.type("Be rude\n")
        terminal.expect("letters")
        terminal.expect("> ")
        terminal.type(END)
        assert terminal.end() == 0
        assert "\x1b[2J" not in terminal.seen and "\x1b[31mclear" not in terminal.seen and "\a" not in terminal.seen
        assert "\x9b" not in terminal.seen and "\u202e" not in terminal.seen


def test_two_answers_stand_beside_each_other_where_there_is_room(tmp_path: Path) -> None:
    with scripted("rude", tmp_path, columns=120) as terminal:
        terminal.expect("> ")
        terminal.type("/compare Who?\n")
        terminal.expect("> ")
        terminal.type(END)
        assert terminal.end() == 0
        lines = terminal.seen.splitlines()
        assert any("other" in line and "script" in line for line in lines)
        assert any("the other answer" in line and "red \\x1b[31m" in line for line in lines)


def test_a_question_may_have_several_lines(tmp_path: Path) -> None:
    with scripted("endless", tmp_path) as terminal:
        terminal.expect("> ")
        terminal.type("one\\\n")
        terminal.expect(". ")
        terminal.type("two\n")
        terminal.expect("tick")
        terminal.type(INTERRUPT)
        terminal.expect("> ")
        terminal.type('"""\n')
        terminal.expect(". ")
        terminal.type("/three\n")
        terminal.expect(". ")
        terminal.type('four"""\n')
        terminal.expect("second answer")
        terminal.expect("> ")
        terminal.type("/history\n")
        terminal.expect("\r\none\r\ntwo\r\n")
        terminal.expect("\r\n/three\r\nfour\r\n")
        terminal.expect("> ")
        terminal.type(END)
        assert terminal.end() == 0


def test_nano_talks_in_a_terminal(tmp_path: Path) -> None:
    file = tmp_path / "talks.jsonl"
    with command("chat", "nano", "--max-new-tokens", 24, "--dtype", "fp32", "--temperature", 1) as terminal:
        terminal.expect("> ")
        for line in ("How many grams are in 6 kg?", "/retry", "/set max_new_tokens 400", "/undo", "Now count."):
            terminal.type(line + "\n")
            terminal.expect("> ")
        terminal.type("/show\n")
        assert "max_new_tokens" in terminal.expect("<|im_start|>assistant")
        terminal.expect("> ")
        terminal.type(f"/save {file}\n")
        terminal.expect("> ")
        terminal.type("Tell me a very long story about everything.\n")
        terminal.expect("everything.\r\n")
        terminal.type(INTERRUPT)  # into the answer, or behind its end: the program goes on in either case
        terminal.expect("> ")
        terminal.type("\n/quit\n")
        assert terminal.end() == 0


class Pipe:
    """What went into `Talk` line by line, and came out of it."""

    def __init__(self, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
        self._capsys, self._patch = capsys, monkeypatch

    def __call__(self, lines: str, voice: Voice, other: Voice | None = None, **settings: object) -> tuple[str, str]:
        self._patch.setattr(sys, "stdin", io.StringIO(lines))
        drawn = Sampling.model_validate({"max_new_tokens": 16, **settings})
        talk = Talk(View(), voice, other, Session(drawn, seed=5))
        talk.run()
        talk.close()
        out, err = self._capsys.readouterr()
        return out, err


@pytest.fixture
def pipe(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Pipe:
    return Pipe(capsys, monkeypatch)


def test_in_a_pipe_only_answers_go_to_standard_output(pipe: Pipe) -> None:
    script = Script([" one"], ["two\nlines"], ["three"])
    lines = 'first\n\n/set top_k 4\n"""quoted\nback\\\n/help\n/history\n/show'
    out, err = pipe(lines, Voice("script", script, Letters(), "Be brief."))
    assert out == "one\ntwo\nlines\nthree\n"
    assert "top_k 4" in err and "/retry" in err and "── user" in err and "max_new_tokens" in err and "Be brief." in err
    asked = ["".join(map(chr, request.ids)).rpartition("<user>")[2] for request in script.requests]
    assert asked == ["first", '"""quoted', "back\\"] and script.closed
    assert len({request.seed for request in script.requests}) == 3


def test_a_session_can_be_played_again(pipe: Pipe) -> None:
    def seeds(lines: str) -> list[int]:
        script = Script(["x"])
        pipe(lines, Voice("script", script, Letters()))
        return [request.seed for request in script.requests]

    first = seeds("a\nb\n/retry\n/retry\nc\n")
    assert first == seeds("a\nb\n/retry\n/retry\nc\n") and len(set(first)) == 5
    assert seeds("a\nb\n/undo\nb\n")[1:] == [first[1], first[1]]
    assert seeds("a\n/clear\na\n") == [first[0], first[0]]
    assert seeds("/set seed 6\na\n") != first[:1]


def test_answers_that_did_not_come_to_their_end_are_told(pipe: Pipe) -> None:
    cut = Voice("script", Script(["half"], stop=Stop.LENGTH), Letters())
    assert "cut off at 16 tokens; /set max_new_tokens gives it more" in pipe("a\n", cut)[1]
    mute = Voice("script", Script([" "]), Letters())
    out, err = pipe("a\n", mute)
    assert out == "\n" and "it said nothing" in err
    frozen = Voice("script", Script(["x"]), Letters())
    assert "the answer stays the same" in pipe("a\n/retry\n", frozen, temperature=0)[1]


def test_turns_that_do_not_fit_are_left_out_and_told(pipe: Pipe) -> None:
    script = Script(["a" * 20], length=120)
    _, err = pipe("1\n2\n3\n4\n5\n", Voice("script", script, Letters()))
    assert err.count("left out of the prompt") == 2 and "the oldest 2 questions with their answers do not fit" in err
    for request in script.requests:
        assert len(request.ids) + request.settings.max_new_tokens <= 120
        assert "".join(map(chr, request.ids)).startswith("<user>")
    with pytest.raises(LengthError, match="the model takes 120"):
        pipe("q" * 120 + "\n", Voice("script", script, Letters()))


def test_compare_asks_both_the_same_and_goes_on_with_the_first(pipe: Pipe) -> None:
    mine, theirs = Script(["mine"]), Script(["theirs"])
    voice, other = Voice("tuned", mine, Letters()), Voice("base", theirs, Letters())
    out, err = pipe("/compare\na\nb\n/compare\n/history\n", voice, other)
    assert out == "theirs\nmine\nmine\ntheirs\nmine\n"
    assert err.count("── base") == 2 and err.count("── tuned") == 2
    assert [each.ids for each in theirs.requests] == [mine.requests[0].ids, mine.requests[1].ids]
    assert mine.requests[1] == mine.requests[2] == theirs.requests[1]
    with pytest.raises(ConfigError, match="nothing says what it was before"):
        pipe("/compare\n", voice)
    opened = []

    def base() -> Voice:
        opened.append(1)
        return Voice("base", Script(["from base"]), Letters())

    lazy = Voice("tuned", Script(["mine"]), Letters(), base=base)
    assert pipe("/compare a\n/compare b\n", lazy)[0] == "from base\nmine\nfrom base\nmine\n" and opened == [1]


def test_conversations_are_saved_as_rows_one_behind_the_other(pipe: Pipe, tmp_path: Path) -> None:
    file = tmp_path / "talks.jsonl"
    voice = Voice("script", Script([" yes"], ["東京 \x1b"]), Letters(), "Be brief.")
    _, err = pipe(f"a\nb\n/save {file}\n/clear\n/system none\nc\n/save {file}\n", voice)
    assert f"appended to {file}: 2 answers" in err
    rows = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
    assert [turn["role"] for turn in rows[0]["messages"]] == ["system", "user", "assistant", "user", "assistant"]
    assert rows[1] == {"messages": [{"role": "user", "content": "c"}, {"role": "assistant", "content": "東京 \x1b"}]}
    assert [each.completions[0].text for each in read_rows(Source(str(file))).examples] == [
        " yes",
        "東京 \x1b",
        "東京 \x1b",
    ]
    with pytest.raises(Exception, match="cannot be written"):
        pipe(f"a\n/save {tmp_path}/no/such/folder.jsonl\n", voice)


def test_what_fails_in_a_pipe_ends_it(pipe: Pipe) -> None:
    class Failing(Script):
        def submit(self, request: object) -> object:
            raise ModelError("the model failed")

    with pytest.raises(ModelError, match="the model failed"):
        pipe("a\n", Voice("script", Failing(["x"]), Letters()))
    with pytest.raises(ConfigError, match="unknown command"):
        pipe("/nonsense\n", Voice("script", Script(["x"]), Letters()))


def test_what_a_model_brings_is_not_obeyed_in_an_error_either(capsys: pytest.CaptureFixture[str]) -> None:
    def fail() -> None:
        raise ModelError("its template says \x1b[2J東京", hint="\x9b2J")

    assert report(fail) == BAD_INPUT
    assert capsys.readouterr().err == "error: its template says \\x1b[2J東京\nhint: \\x9b2J\n"


def test_standard_input_that_is_not_text_is_refused(pipe: Pipe, monkeypatch: pytest.MonkeyPatch) -> None:
    view = View()
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"caf\xe9\n"), encoding="utf-8"))
    with pytest.raises(DataError, match="not valid UTF-8"):
        view.read()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--temperature", "-1"], "sample.temperature = -1"),
        (["--top-p", "2"], "sample.top_p = 2"),
        (["no/such/model"], "no/such/model"),
        (["missing.gguf"], "missing.gguf: no such file"),
        (["nano", "--n-ctx", "512"], "n_ctx = 512: nano"),
        (["nano", "--chat-template", "chatnl"], "did you mean 'chatml'?"),
        (["nano", "--adapter", "nowhere"], "nowhere"),
    ],
)
def test_what_is_wrong_with_a_command_is_one_line(
    arguments: list[str], message: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO(""))
    code, out, err = run_ramify(monkeypatch, capsys, "chat", *arguments)
    assert code == BAD_INPUT and out == "" and message in err and "unexpected" not in err


def test_a_pipe_through_the_command(
    model_folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def said(*options: object) -> str:
        monkeypatch.setattr(sys, "stdin", io.StringIO("One?\nTwo?\n"))
        command = ("chat", model_folder, "--max-new-tokens", 5, "--dtype", "fp32", "--device", "cpu", *options)
        code, out, err = run_ramify(monkeypatch, capsys, *command)
        assert code == OK, err
        return out

    assert said() == said() != said("--seed", 7)
    assert said("--temperature", 0) == said("--temperature", 0, "--seed", 7)


@given(st.text())
def test_neutral_text_holds_nothing_that_a_terminal_obeys(text: str) -> None:
    shown = neutral(text)
    assert not any(unicodedata.category(each) == "Cc" and each not in "\n\t" for each in shown)
    assert neutral(shown) == shown
    assert "".join(map(neutral, text)) == shown
    plain = "".join(each for each in text if each.isprintable() or each in "\n\t")
    assert neutral(plain) == plain
