"""The page of rows: nothing of a row is taken for HTML, trained text is marked, the right rows are picked."""

from __future__ import annotations

from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from train_setup import Watcher, make_config, model_folder, pairs_file, preferences_file
from typer.testing import CliRunner

from ramify.base.types import Completion, Example, Message, TokenSequence
from ramify.cli.main import app
from ramify.prompts.page import Section, Shown, rows_page
from ramify.prompts.renderer import Renderer
from ramify.prompts.show import joined
from ramify.prompts.templates import CHATML
from ramify.train import dpo, sft
from ramify.train.look import Kind, Look, Pick
from tests.tiny_tokenizers import CHATML_TOKENS, byte_level

__all__ = ["model_folder"]


class Reader(HTMLParser):
    """Tags, attributes, the text of each article, and its marked text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[str] = []
        self.rows: list[str] = []
        self.marked: list[str] = []
        self._inside: list[str] = []
        self._begun = False
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [name for name, _ in attrs]
        self._inside.append(tag)
        if tag == "pre":
            self.rows.append("")
            self.marked.append("")
            self._begun = False

    def handle_endtag(self, tag: str) -> None:
        if tag in self._inside:
            del self._inside[len(self._inside) - 1 - self._inside[::-1].index(tag) :]

    def handle_data(self, data: str) -> None:
        if "pre" in self._inside:
            self.rows[-1] += data if self._begun else data.removeprefix("\n")
            self._begun = True
            if "mark" in self._inside:
                self.marked[-1] += data


TOKENIZER: Any = byte_level(tokens=CHATML_TOKENS, template=CHATML)
TEXT = st.text(st.characters(blacklist_categories=["Cs", "Cc"]), min_size=1, max_size=20).filter(str.strip)


def shown(question: str, answer: str) -> Shown:
    example = Example((Message("user", question),), (Completion(answer),))
    return Shown(question, "", Renderer(TOKENIZER).sequences(example))


@given(TEXT, TEXT)
def test_rows_are_text_and_never_html(question: str, answer: str) -> None:
    row = shown(f"\n<script>{question}</pre>&amp;", f"<img src=x>{answer}</img>")
    read = Reader(rows_page(f"<img>{question}", TOKENIZER, [Section("first rows", [row])]))
    (sequence,) = row.sequences
    assert not {"script", "link", "img"} & set(read.tags)
    assert set(read.attributes) <= {"lang", "charset", "name", "content"}
    assert read.rows == [TOKENIZER.decode(sequence.ids)]
    assert read.marked == [f"<img src=x>{answer}</img><|im_end|>"]


def test_the_page_needs_nothing_else() -> None:
    page = rows_page("Rows", TOKENIZER, [Section("first rows", [shown("a", "b")])])
    assert "://" not in page and "url(" not in page and "prefers-color-scheme:dark" in page and "viewport" in page


def test_a_very_long_text_keeps_its_ends_and_says_what_is_missing() -> None:
    read = Reader(rows_page("Rows", TOKENIZER, [Section("x", [shown("start" + "x" * 20_000 + "finish", "b")])]))
    assert len(read.rows[0]) < 7_000 and "start" in read.rows[0] and "finish" in read.rows[0]
    assert " characters …" in read.rows[0]


def test_the_turns_of_a_conversation_are_one_text() -> None:
    first = TokenSequence((1, 2, 3, 4), (0.0, 0.0, 1.0, 1.0))
    second = TokenSequence((1, 2, 3, 4, 5, 6), (0.0, 0.0, 0.0, 0.0, 0.0, 0.5))
    other = TokenSequence((1, 2, 9), (0.0, 0.0, 1.0))
    assert joined([first, second, other]) == [TokenSequence(second.ids, (0.0, 0.0, 1.0, 1.0, 0.0, 0.5)), other]
    assert joined([]) == []


def test_which_rows_are_picked() -> None:
    look, lengths = Look(), [5, 90, 3, 40, 41, 42, 2, 80, 70, 43, 44]
    for number, length in enumerate(lengths):
        look.offer(Pick(number, f"f:{number}"), length, turns=2 if number in (4, 5) else 1)
    found = {kind: [pick.row for pick in picks] for kind, picks in look.picked().items()}
    assert found[Kind.LONGEST] == [1, 7, 8] and found[Kind.SHORTEST] == [6, 2, 0]
    assert sorted(found[Kind.TURNS]) == [4, 5]
    assert set(found[Kind.RANDOM]) <= {3, 4, 5, 9, 10} - set(found[Kind.TURNS]) | {3, 9, 10}
    everything = [row for rows in found.values() for row in rows]
    assert len(everything) == len(set(everything))


def test_every_run_leaves_its_page(model_folder: Path, tmp_path: Path) -> None:
    rows = pairs_file(tmp_path / "t.json", 5)
    run = sft.run(make_config(model_folder, rows, tmp_path / "run", train={"max_steps": 1}), progress=Watcher())
    page = (run.folder / "rows.html").read_text(encoding="utf-8")
    assert all(f"t.json:{line}" in page or "t.json:1" in page for line in range(1, 6))
    read = Reader(page)
    assert len(read.rows) == 5 and all("<answer>" in text and "?" not in text for text in read.marked)
    pairs = preferences_file(tmp_path / "p.jsonl")
    config = make_config(model_folder, pairs, tmp_path / "dpo", method="dpo", train={"max_steps": 1})
    read = Reader((dpo.run(config, progress=Watcher()).folder / "rows.html").read_text(encoding="utf-8"))
    assert len(read.rows) % 2 == 0 and any("good" in text for text in read.marked)


def test_the_command_writes_a_page(model_folder: Path, tmp_path: Path) -> None:
    rows = pairs_file(tmp_path / "t.json", 5)
    page = tmp_path / "page.html"
    done = CliRunner().invoke(
        app, ["data", "show", str(rows), f"model={model_folder}", "--n", "2", "--page", str(page)]
    )
    assert done.exit_code == 0 and str(page) in done.output
    assert len(Reader(page.read_text(encoding="utf-8")).rows) == 2


@pytest.mark.parametrize("side", ["chosen", "rejected"])
def test_sides_of_a_pair_are_named(model_folder: Path, tmp_path: Path, side: str) -> None:
    rows = preferences_file(tmp_path / "p.jsonl")
    done = CliRunner().invoke(app, ["data", "show", str(rows), f"model={model_folder}", "--n", "1"])
    assert f"{side}: " in done.output
