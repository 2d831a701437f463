"""What somebody wrote stays text, is seen whole, and moves nothing; where two answers differ is marked."""

from __future__ import annotations

import unicodedata
from html import unescape

import pytest
from html_setup import Tags
from hypothesis import given
from hypothesis import strategies as st

from ramify.evaluate.report.marking import Passage, differences
from ramify.evaluate.report.visible import attribute, clipped, isolated, plain, visible

ANYTHING = st.text(st.characters(codec=None, exclude_categories=()), max_size=60)
"""Every character there is, halves of surrogate pairs too."""


@pytest.mark.parametrize(
    ("text", "seen"),
    [
        ("a\x1b[31mred\x00\x00\x7f", "a[ESC][31mred[NUL][NUL][DEL]"),
        ("one\r\ntwo\tx", "one[CR]\ntwo\tx"),
        ("\x85\x9b", "[U+0085][U+009B]"),
        ("x\u202eevil\u2066\u200f", "x[U+202E]evil[U+2066][U+200F]"),
        ("zero\u200bwidth\ufeff\u00ad", "zero[U+200B]width[U+FEFF][U+00AD]"),
        ("\ud800 \uffff \U0001fffe", "[U+D800] [U+FFFF] [U+1FFFE]"),
        ("a\u2028b", "a[U+2028]b"),
        ("Z" + "\u0301" * 100, "Z" + "\u0301" * 4 + "[+96 accents]"),
        ("tag\U000e0041", "tag[U+E0041]"),
        ("a\u200db \ufe0f", "a[U+200D]b [U+FE0F]"),
    ],
)
def test_what_cannot_be_seen_is_written_out(text: str, seen: str) -> None:
    assert plain(text) == seen
    assert Tags(visible(text)).text == seen
    assert Tags(visible(text)).tags and set(Tags(visible(text)).tags) == {"span"}


@pytest.mark.parametrize(
    "text",
    [
        "👩‍💻 ❤️‍🔥 1️⃣ ❤️ 👍🏽",
        "می‌خواهم",  # a non-joiner between Persian letters
        "क्‍ष",  # a joiner between Devanagari letters
        "مرحبا (abc) שלום",
        "café naïve Việt Nam e\u0301",
        "line\nnext\ttab  two spaces",
        "",
    ],
)
def test_what_can_be_seen_stays_what_it_is(text: str) -> None:
    assert plain(text) == text == Tags(visible(text)).text
    assert Tags(visible(text)).tags == []


@given(ANYTHING)
def test_nothing_is_obeyed_or_hidden(text: str) -> None:
    page = Tags(visible(text))
    assert set(page.tags) <= {"span"} and {value for _, value in page.attributes} <= {"sign"}
    assert page.text == plain(text)
    for letter in plain(text):
        kind = unicodedata.category(letter)
        assert letter in "\n\t" or kind not in ("Cc", "Cs", "Zl", "Zp"), hex(ord(letter))
        turning = ("LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI")
        assert unicodedata.bidirectional(letter) not in turning
    plain(text).encode()  # a file can hold it


@given(ANYTHING, st.sampled_from("'\""))
def test_an_attribute_ends_where_it_should(text: str, quote: str) -> None:
    value = attribute(text)
    assert quote not in value and unescape(value) == plain(text)
    assert Tags(f"<b title={quote}{value}{quote}>x</b>").tags == ["b"]


def test_a_name_within_a_line_cannot_turn_it() -> None:
    assert isolated("<b>\u05d0") == "<bdi>&lt;b&gt;\u05d0</bdi>"


@given(st.text(max_size=300), st.integers(30, 100))
def test_a_long_text_is_clipped_in_its_middle(text: str, most: int) -> None:
    found = clipped(text, most)
    if len(text) <= most:
        assert found == text
    else:
        head, tail = text[: most * 2 // 3], text[most * 2 // 3 - most :]
        assert found == f"{head} … ({len(text) - most:,} characters left out) … {tail}"
        assert len(head) + len(tail) == most


@given(
    st.lists(st.sampled_from(["a", "b", "cc", " ", "  ", ".", "\n"])), st.lists(st.sampled_from(["a", "cc", " ", "x"]))
)
def test_passages_are_the_texts_again_and_what_both_have_is_not_marked(left: list[str], right: list[str]) -> None:
    before, after = "".join(left), "".join(right)
    old, new = differences(before, after)
    assert ("".join(p.text for p in old), "".join(p.text for p in new)) == (before, after)
    kept = ["".join(p.text for p in side if not p.changed).split() for side in (old, new)]
    if any(p.changed for p in (*old, *new)):
        assert "".join(kept[0]) == "".join(kept[1])
    if before == after:
        assert not any(p.changed for p in (*old, *new))


def test_differences_are_found_word_by_word() -> None:
    old, new = differences("1 kg is 100 g, so 6 kg are 600 g.", "1 kg is 1000 g, so 6 kg are 6000 g.")
    assert [p.text for p in old if p.changed] == ["100", "600"]
    assert [p.text for p in new if p.changed] == ["1000", "6000"]


def test_answers_with_nothing_in_common_are_not_marked() -> None:
    assert differences("the answer is six", "no") == ([Passage("the answer is six", False)], [Passage("no", False)])
    assert differences("", "") == ([Passage("", False)], [Passage("", False)])
