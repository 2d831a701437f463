"""The report as Markdown: the same facts as the page, and nothing in anybody's text is taken for Markdown or HTML."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from markdown_it import MarkdownIt
from report_setup import hostile_pair
from test_evaluate_report import Page, base, trained, write_evaluation

from ramify.evaluate.compare.comparison import Comparison, compare_runs, compare_stages
from ramify.evaluate.compare.facts import Table
from ramify.evaluate.report.extras import Extras
from ramify.evaluate.report.markdown import bullets, escaped, fenced, render, table
from ramify.evaluate.report.visible import plain
from ramify.evaluate.report.write import render as render_page
from ramify.evaluate.report.write import write_report
from ramify.evaluate.stages import stage

__all__ = ["base", "trained"]

READER = MarkdownIt("commonmark").enable(["table", "strikethrough"])
LINE = st.text(st.characters(codec="utf-8"), min_size=1, max_size=40)
MARKED = st.text(st.sampled_from("|`*_[]()<>#~\\!&$@+-=.:/1w a"), min_size=1, max_size=30)


def kinds(markdown: str) -> set[str]:
    """What a reader of Markdown finds in it."""
    return {inner.type for token in READER.parse(markdown) for inner in (token, *(token.children or ()))}


def text_of(markdown: str) -> str:
    return "".join(
        inner.content for token in READER.parse(markdown) for inner in token.children or () if inner.type == "text"
    )


@given(LINE | MARKED)
def test_escaped_text_is_one_paragraph_of_text(line: str) -> None:
    found = kinds(f"x {escaped(line)}")
    assert found <= {"paragraph_open", "inline", "text", "paragraph_close", "text_special"}


@given(MARKED)
def test_a_sentence_of_a_list_begins_nothing(line: str) -> None:
    found = kinds(bullets([line]))
    lists = {"bullet_list_open", "list_item_open", "list_item_close", "bullet_list_close"}
    assert found <= lists | {"paragraph_open", "inline", "text", "paragraph_close"}
    assert READER.render(bullets([line])).count("<li>") == 1


@given(st.text(st.sampled_from("`~\n ax"), max_size=40))
def test_a_fence_ends_where_its_text_does(text: str) -> None:
    (block,) = READER.parse(fenced(text))
    assert block.type == "fence" and block.content == f"{text}\n"


@given(st.lists(st.tuples(MARKED, LINE), min_size=1, max_size=4))
def test_a_table_keeps_its_cells(rows: list[tuple[str, str]]) -> None:
    html = READER.render(table(Table(["", "a|b"], rows)))
    assert html.count("<tr>") == len(rows) + 1
    assert html.count("<td") == 2 * len(rows)


def test_a_table_without_rows_is_nothing() -> None:
    assert table(Table(["a"], [])) == ""


def figures(text: str) -> set[str]:
    """Differences with their intervals, and rates with theirs."""
    return set(re.findall(r"[+−]?\d+\.\d(?: %)? \([^()]+\d\)", text))


def facts_of(comparison: Comparison) -> tuple[str, str]:
    return Page(render_page(comparison)).text, text_of(render(comparison))


def test_the_same_facts_as_the_page(base: Path, trained: Path, tmp_path: Path) -> None:
    many = [write_evaluation(tmp_path / name, right=set(range(start, 30)), k=4) for start, name in enumerate("ab")]
    for comparison in (compare_stages([stage(base), stage(trained)]), compare_runs(many)):
        page, markdown = facts_of(comparison)
        assert figures(markdown) and figures(markdown) <= figures(page)
        for part in (*comparison.notes, comparison.title, *(each.verdict for each in comparison.contrasts)):
            assert part in page and part in markdown
        for title in ("Form of the answers", "What was trained", "Settings that differ", "How this was counted"):
            assert (title in page) == (title in markdown)


def test_hostile_text_stays_text(tmp_path: Path) -> None:
    markdown = render(compare_runs(hostile_pair(tmp_path, 120)))
    found = kinds(markdown)
    assert not found & {"html_inline", "html_block", "image", "link_open", "code_inline", "em_open", "s_open"}
    assert {"fence", "table_open", "heading_open"} <= found
    headings = [token for token in READER.parse(markdown) if token.type == "heading_open"]
    assert len(headings) == len(re.findall(r"^#+ ", re.sub(r"(?ms)^(`{3,})text\n.*?^\1$", "", markdown), re.M))
    assert "\u202e" not in markdown and "\x1b" not in markdown and len(markdown) < 60_000
    assert plain(markdown) == markdown


def test_what_a_caller_adds_is_in_both_forms(base: Path, trained: Path) -> None:
    comparison = compare_stages([stage(base), stage(trained)])
    extras = Extras(["one & two"], {"together": (8123.0, "tokens/s")}, {"Export": (["", "KL"], [["Q8_0", "0.001"]])})
    page, markdown = Page(render_page(comparison, extras)).text, text_of(render(comparison, extras))
    for part in ("one & two", "Speed", "together", "8,123", "tokens/s", "Export", "Q8_0", "0.001"):
        assert part in page and part in markdown
    assert "Speed" not in render(comparison) and "Speed" not in render_page(comparison)


def test_answers_of_several_samples_are_said_to_be_the_first(tmp_path: Path) -> None:
    for k, shown in ((4, True), (1, False)):
        folders = [write_evaluation(tmp_path / f"{name}{k}", {1, 2, start}, k=k) for start, name in enumerate("ab", 3)]
        page, markdown = facts_of(compare_runs(folders))
        assert ("Shown are first answers" in page) == ("Shown are first answers" in markdown) == shown


@pytest.mark.parametrize("name", ["r.md", "r.MARKDOWN", "r.html", "r.htm"])
def test_the_file_name_chooses_the_form(base: Path, trained: Path, tmp_path: Path, name: str) -> None:
    write_report(tmp_path / name, compare_stages([stage(base), stage(trained)]))
    text = (tmp_path / name).read_text(encoding="utf-8")
    assert text.startswith("<!doctype html>" if "htm" in name else "# ")
