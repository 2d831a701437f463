"""Many rows at once are tokenised as one row at a time is: id for id, error for error."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoTokenizer

from ramify import nano
from ramify.base.config import Prompting
from ramify.base.errors import ConfigError, DataError
from ramify.base.types import Completion, Example, Message, TokenSequence
from ramify.prompts.many import encode_many, encode_texts
from ramify.prompts.renderer import Renderer
from ramify.prompts.templates import encode
from tests.test_prompts_renderer import KINDS, TEMPLATES, tokenizer_of
from tests.tiny_tokenizers import CHATML_TOKENS, byte_level, metaspace

SYSTEM = Message("system", "Be concise.")
PARTS = ("How many g", " are in 6 kg?", "東京", "\n", "  ", "<|im_end|>", "<|im_start|>", "über", "0", "</s>", "<|im_")
TEXT = st.lists(st.sampled_from(PARTS), max_size=5).map("".join)


def chat(*turns: str) -> tuple[Message, ...]:
    return tuple(Message("user" if place % 2 == 0 else "assistant", text) for place, text in enumerate(turns))


def one_by_one(renderer: Renderer, examples: Sequence[Example]) -> list[list[TokenSequence] | str]:
    found: list[list[TokenSequence] | str] = []
    for example in examples:
        try:
            found.append(renderer.sequences(example))
        except DataError as error:
            found.append(str(error))
    return found


def at_once(renderer: Renderer, examples: Sequence[Example]) -> list[list[TokenSequence] | str]:
    return [
        str(each)
        if isinstance(each, DataError)
        else [TokenSequence.of(tuple(one.prompt.tolist()), tuple(one.completion.tolist()), one.weight) for one in each]
        for each in encode_many(renderer, examples)
    ]


def assert_same(tokenizer: Any, prompting: Prompting, examples: Sequence[Example]) -> None:
    slow, fast = Renderer(tokenizer, prompting), Renderer(tokenizer, prompting)
    assert at_once(fast, examples) == one_by_one(slow, examples)
    assert fast.separate_count == slow.separate_count


EXAMPLES = (
    Example(chat("How many grams are in 6 kg?"), (Completion("6000"), Completion(" 6000", 0.5), Completion("x", 0.0))),
    Example((SYSTEM, *chat("a", "b", "And in 東京?")), (Completion("über 7<|im_end|>"),), "f:2"),
    Example((SYSTEM, *chat("a")), (Completion("b"),), "f:2"),
    Example(chat("a"), (Completion(" \n"),), "f:3"),
    Example(chat("a"), (Completion("b<|im_end|>c"),), "f:4"),
    Example(chat("a"), (), "f:5"),
    Example(chat("a"), (Completion("b", 0.0),), "f:6"),
    Example(chat(""), (Completion("b"),), "f:7"),
    Example((), (Completion("Once upon 6 kg.\n"), Completion(" in 東京", 0.5)), "f:8"),
    Example((), (Completion("a</s>"),), "f:9"),
    Example((), (Completion("a</s>b"),), "f:10"),
    Example((), (Completion("<s>a b c"),), "f:11"),
    Example((), (Completion("a", 0.0),), "f:12"),
    Example((), (Completion(""),), "f:13"),
)


@pytest.mark.parametrize("bos", [False, True])
@pytest.mark.parametrize("template", ["plain", *TEMPLATES])
@pytest.mark.parametrize("kind", KINDS)
def test_rows_and_errors_are_those_of_one_at_a_time(kind: str, template: str, bos: bool) -> None:
    tokenizer = tokenizer_of(kind, "chatml" if template == "plain" else template, bos=bos)
    assert_same(tokenizer, Prompting(chat_template="plain" if template == "plain" else "model"), EXAMPLES)


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=60)
@given(rows=st.lists(st.tuples(TEXT, TEXT, TEXT, TEXT), min_size=1, max_size=6), plain=st.booleans())
def test_whatever_stands_in_the_rows(kind: str, rows: list[tuple[str, str, str, str]], plain: bool) -> None:
    examples = [
        Example((SYSTEM, *chat(first, answer, second)), (Completion(last), Completion(answer)))
        for first, answer, second, last in rows
    ]
    prompting = Prompting(chat_template="plain" if plain else "model")
    assert_same(tokenizer_of(kind, "chatml", bos=True), prompting, examples)


def test_a_row_that_the_template_refuses_is_the_only_one() -> None:
    template = "{% if messages[0].role == 'system' %}{{ raise_exception('no system') }}{% endif %}" + TEMPLATES["bare"]
    examples = [Example(chat("a"), (Completion("b"),)), Example((SYSTEM, *chat("a")), (Completion("b"),), "f:2")]
    found = encode_many(Renderer(byte_level(template=template)), examples)
    assert not isinstance(found[0], DataError) and "f:2: chat template model refuses the turns" in str(found[1])
    with pytest.raises(ConfigError, match="chat template model, line 1"):
        encode_many(_broken(), examples)


def _broken() -> Renderer:
    """With a template that stopped being Jinja after the renderer was made."""
    renderer = Renderer(byte_level(template=TEMPLATES["bare"]))
    object.__setattr__(renderer.template, "source", "{% for %}")
    return renderer


def test_a_completion_that_merges_with_its_prompt_counts_as_there(tmp_path: Path) -> None:
    file = tmp_path / "template.jinja"
    file.write_text("{% for m in messages %}{{ m.content }} {% endfor %}{% if add_generation_prompt %}Par{% endif %}")
    examples = [Example(chat("A"), (Completion("is"), Completion("is it")))]
    assert_same(metaspace(), Prompting(chat_template=str(file)), examples)
    renderer = Renderer(metaspace(), Prompting(chat_template=str(file)))
    encode_many(renderer, examples)
    assert renderer.separate_count == 2


class Counting:
    """A tokenizer's backend that counts what goes through it."""

    def __init__(self, backend: Any) -> None:
        self.backend, self.calls, self.texts = backend, 0, list[str]()

    def encode_batch_fast(self, texts: list[str], add_special_tokens: bool) -> Any:
        self.calls += 1
        self.texts += texts
        return self.backend.encode_batch_fast(texts, add_special_tokens=add_special_tokens)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.backend, name)


def test_each_stretch_between_special_tokens_goes_through_the_tokenizer_once() -> None:
    tokenizer = byte_level(tokens=CHATML_TOKENS, template=TEMPLATES["chatml"])
    renderer = Renderer(tokenizer)
    counting = Counting(tokenizer.backend_tokenizer)
    tokenizer._tokenizer = counting
    turns = ("first", "one", "second", "two", "third", "three")
    examples = [
        Example((SYSTEM, *chat(*turns[:place])), (Completion(turns[place]),)) for place in (1, 3, 5) for _ in range(2)
    ]
    encode_many(renderer, examples)
    assert counting.calls == 1 and len(counting.texts) == len(set(counting.texts))
    assert sum("Be concise." in text for text in counting.texts) == 1


@pytest.mark.parametrize("change", ["strip", "first", "truncation"])
def test_tokenizers_whose_ids_depend_on_the_place_get_whole_texts(change: str) -> None:
    """An added token that eats the space before it; a word start for the first stretch alone; cutting switched on."""
    tokenizer = metaspace(tokens=CHATML_TOKENS)
    if change == "strip":
        from transformers import AddedToken

        tokenizer.add_special_tokens({"additional_special_tokens": [AddedToken("<x>", lstrip=True, special=True)]})
    elif change == "first":
        from tokenizers import pre_tokenizers

        tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first")
    else:
        tokenizer.backend_tokenizer.enable_truncation(3)
    texts = ["Be  <x> concise <|im_end|>Be", "<|im_end|>Be concise", "", " a", "<|im_end|>"]
    assert encode_texts(tokenizer, texts) == [list(encode(tokenizer, text)) for text in texts]
    assert encode_texts(tokenizer, []) == []


@pytest.mark.parametrize("place", ["nano", "smollm2_tokenizer"])
def test_published_tokenizers(place: str, request: pytest.FixtureRequest) -> None:
    folder = nano.path() if place == "nano" else request.getfixturevalue("shared") / "models" / place
    if not folder.is_dir():
        pytest.skip("not in the shared data")
    tokenizer = AutoTokenizer.from_pretrained(str(folder))
    template = "model" if tokenizer.chat_template else "plain"
    turns = ("Convert 10,000 m to km, please.\n", " It is 10 km.  ", "And\n\nin   miles?", "6.21 <|im_start|>")
    examples = [
        Example((*system, *chat(*turns[:place])), (Completion(turns[place]),), f"f:{place}")
        for system in ((), (SYSTEM,))
        for place in (1, 3)
    ]
    assert_same(tokenizer, Prompting(chat_template=template), examples)
