"""What is trained is shown, and nothing of the text is lost."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from ramify.base.types import Completion, Example, Message, TokenSequence
from ramify.prompts.renderer import Renderer
from ramify.prompts.show import TRAINED, UNTRAINED, Span, coloured, spans
from ramify.prompts.templates import CHATML
from tests.tiny_tokenizers import CHATML_TOKENS, byte_level, metaspace

EXAMPLE = Example((Message("user", "How many g are in 6 kg, 東京?"),), (Completion("über 6000 g"),))


@pytest.mark.parametrize("make", [byte_level, metaspace])
def test_prompt_untrained_completion_trained(make: Callable[..., Any]) -> None:
    tokenizer = make(tokens=CHATML_TOKENS, template=CHATML)
    (sequence,) = Renderer(tokenizer).sequences(EXAMPLE)
    prompt, completion = spans(tokenizer, sequence)
    assert (prompt.trained, completion.trained) == (False, True)
    assert prompt.tokens + completion.tokens == len(sequence.ids)
    assert completion.text == "über 6000 g<|im_end|>"
    assert prompt.text + completion.text == tokenizer.decode(sequence.ids)


def test_a_letter_across_a_border_is_shown_behind_it() -> None:
    tokenizer = byte_level()
    ids = tuple(tokenizer("a→b", add_special_tokens=False)["input_ids"])
    assert tokenizer.convert_ids_to_tokens(ids) == ["a", "â", "Ĩ", "Ĵ", "b"]
    shown = spans(tokenizer, TokenSequence(ids, (0.0, 0.0, 1.0, 1.0, 1.0)))
    assert shown == [Span("a", False, 2), Span("→b", True, 3)]


def test_colours() -> None:
    tokenizer = byte_level(tokens=CHATML_TOKENS, template=CHATML)
    (sequence,) = Renderer(tokenizer).sequences(EXAMPLE)
    text = coloured(tokenizer, sequence)
    assert text.plain == tokenizer.decode(sequence.ids)
    assert [str(span.style) for span in text.spans] == [UNTRAINED, TRAINED]
