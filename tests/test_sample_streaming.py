"""Text out of single tokens: never half a letter, never a part of a stop string, and the same as the whole."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_tokenizers import byte_level, metaspace

from ramify.sample.streaming import StopFinder, StreamDecoder, StreamedText, cut_at, decode

KINDS = {"byte_level": byte_level, "metaspace": metaspace}
TEXTS = (
    "How many grams are in 6 kg?",
    "Über naïve cafés, 東京 and 🙂🙂 twice",
    "  two spaces, a\nline, and a tab\t.",
    "東京",
    "é",
    "",
)


def ids_of(tokenizer: Any, text: str) -> list[int]:
    return list(tokenizer(text, add_special_tokens=False)["input_ids"])


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("text", TEXTS)
def test_pieces_join_to_the_whole(kind: str, text: str) -> None:
    tokenizer = KINDS[kind]()
    ids = ids_of(tokenizer, text)
    decoder = StreamDecoder(tokenizer)
    pieces = [decoder.push(token) for token in ids]
    assert not any("\ufffd" in piece for piece in pieces)
    assert "".join(pieces) + decoder.finish() == decode(tokenizer, ids)
    assert decode(tokenizer, ids).strip() == text.strip()


@pytest.mark.parametrize("kind", KINDS)
def test_letters_of_several_tokens_come_whole(kind: str) -> None:
    tokenizer = KINDS[kind]()
    ids = ids_of(tokenizer, "🙂")
    assert len(ids) > 1
    decoder = StreamDecoder(tokenizer)
    pieces = [decoder.push(token) for token in ids]
    assert pieces[-1].strip() == "🙂" and "".join(pieces[:-1]).strip() == ""


@pytest.mark.parametrize("kind", KINDS)
def test_an_unfinished_letter_is_shown_at_the_end_only(kind: str) -> None:
    tokenizer = KINDS[kind]()
    ids = ids_of(tokenizer, "ok 🙂")[:-1]
    decoder = StreamDecoder(tokenizer)
    shown = "".join(decoder.push(token) for token in ids)
    assert "\ufffd" not in shown
    assert shown + decoder.finish() == decode(tokenizer, ids)


@pytest.mark.parametrize("kind", KINDS)
def test_special_tokens_in_between_change_nothing(kind: str) -> None:
    tokenizer = KINDS[kind]()
    words = ids_of(tokenizer, "Paris is")
    ids = [tokenizer.eos_token_id, *words, tokenizer.bos_token_id, *ids_of(tokenizer, " the capital")]
    decoder = StreamDecoder(tokenizer)
    assert "".join(decoder.push(token) for token in ids) + decoder.finish() == decode(tokenizer, ids)


@settings(max_examples=40)
@given(st.lists(st.integers(min_value=3, max_value=399), max_size=16))
def test_any_bytes_join_to_the_whole(ids: list[int]) -> None:
    tokenizer = byte_level()
    decoder = StreamDecoder(tokenizer)
    shown = "".join(decoder.push(token) for token in ids)
    assert shown + decoder.finish() == decode(tokenizer, ids)


@settings(max_examples=40)
@given(st.text(max_size=10))
def test_any_text_joins_to_the_whole(text: str) -> None:
    for kind in KINDS.values():
        tokenizer = kind()
        ids = ids_of(tokenizer, text)
        decoder = StreamDecoder(tokenizer)
        assert "".join(decoder.push(token) for token in ids) + decoder.finish() == decode(tokenizer, ids)


@pytest.mark.parametrize("kind", KINDS)
def test_stop_strings_are_found_across_tokens(kind: str) -> None:
    tokenizer = KINDS[kind]()
    text = "so 6 kg is 6000 g. <answer>6000</answer> and more"
    for stop in ("</answer>", "6000 g", "is", "d more"):
        finder = StopFinder(tokenizer, [stop])
        ids = ids_of(tokenizer, text)
        found = [finder.push(token) for token in ids]
        assert found.count(True) >= 1
        needed = found.index(True) + 1
        assert stop in decode(tokenizer, ids[:needed])
        assert stop not in decode(tokenizer, ids[: needed - 1])


def test_text_ends_before_the_first_stop_string() -> None:
    assert cut_at("one two three", ("three", "two")) == "one "
    assert cut_at("one two", ("three",)) == "one two"
    assert cut_at("one two", ()) == "one two"


@pytest.mark.parametrize("kind", KINDS)
def test_streamed_text_never_shows_a_stop_string_begun(kind: str) -> None:
    tokenizer = KINDS[kind]()
    ids = ids_of(tokenizer, "6 kg is 6000 g. <answer>6000</answer> and more")
    whole = decode(tokenizer, ids)
    for stops in (("</answer>",), ("<answer>6000<b", "and"), (), ("zz",)):
        text = StreamedText(tokenizer, stops)
        shown = ""
        for token in ids:
            shown += text.push(token)
            assert cut_at(whole, stops).startswith(shown)
        assert shown + text.finish() == cut_at(whole, stops)
