"""The rule `similar`: how close an answer is to a reference in meaning, by the hidden states of a model.

A text's embedding is the mean of the model's last hidden states over its tokens. Such means all point in much the same
direction (Ethayarajh 2019, arXiv 1909.00512), so that every two texts look alike; the mean over background sentences is
therefore taken off each before the cosine. Equal texts have 1, unrelated ones are around 0.

What it can tell depends on the model. Embeddings see what a text is about far better than whether it is right: `It is
7.` and `It is 8.` are close, and so are a sentence and its negation. A threshold has no meaning of its own: look at
what answers you accept get, and choose it from them. Where a text can be checked by a rule, the rule is better.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Any

from ramify.base.errors import TaskError
from ramify.tasks.chat.finding import Answer, Check, Finding, Spot, short

if TYPE_CHECKING:
    from ramify.model.load import LoadedModel

BACKGROUND = (
    "The train leaves at nine in the morning.",
    "She bought bread, milk and a newspaper.",
    "Water freezes at zero degrees.",
    "I am sorry, I did not understand that.",
    "Please write back as soon as you can.",
    "The old house stands on a hill by the sea.",
    "Add two spoons of sugar and stir well.",
    "He has played the violin since he was six.",
    "Yes, of course.",
    "There are twelve months in a year.",
    "Nobody knows why the lights went out.",
    "The results were published last week.",
)
"""Sentences about nothing in common, whose mean is what all texts share."""


def similar(value: Any, spot: Spot) -> Check:
    """The answer is close to one of the texts: `{text: …, at_least: 0.6, model: nano}`.

    Raises:
        TaskError: the threshold is not between -1 and 1, or no model is named.
    """
    given = spot.options(value, "text", ("at_least", "model"))
    texts, least, model = spot.texts(given["text"]), given.get("at_least"), given.get("model")
    if isinstance(least, bool) or not isinstance(least, int | float) or not -1 <= least <= 1:
        raise spot.error("at_least: a number from -1 to 1", least)
    if not isinstance(model, str) or not model:
        raise TaskError(f"{spot.where}: model: a name is needed, found {model!r}", hint="nano, a hub id or a folder")

    def check(answer: Answer) -> Finding:
        best = max(similarity(model, answer.text, text) for text in texts)
        return Finding(best >= least, False, f"similarity {best:.3f} to {short(texts[0], 30)!r}")

    return check


def similarity(model: str, text: str, reference: str) -> float:
    """Cosine of two texts' embeddings, what all texts share taken off, from -1 to 1; 0 for a text without tokens.

    The model is loaded when it is first asked, and kept.

    Raises:
        ModelError: the model cannot be had.
    """
    first, second = (_embedding(model, " ".join(each.split())) for each in (text, reference))
    length = (_dot(first, first) * _dot(second, second)) ** 0.5
    return max(-1.0, min(1.0, _dot(first, second) / length)) if length else 0.0


def _dot(first: tuple[float, ...], second: tuple[float, ...]) -> float:
    return sum(a * b for a, b in zip(first, second, strict=True))


@lru_cache(maxsize=4096)
def _embedding(model: str, text: str) -> tuple[float, ...]:
    """The embedding with the background taken off; nothing but zeros for a text without tokens."""
    if not text:
        return (0.0,) * len(_background(model))
    return tuple(a - b for a, b in zip(_mean_state(model, text), _background(model), strict=True))


@lru_cache(maxsize=4)
def _background(model: str) -> tuple[float, ...]:
    states = [_mean_state(model, text) for text in BACKGROUND]
    return tuple(sum(column) / len(states) for column in zip(*states, strict=True))


def _mean_state(model: str, text: str) -> tuple[float, ...]:
    """Mean of the last hidden states over the tokens of a text, each text in a row by itself."""
    from ramify.base.types import TokenSequence
    from ramify.model.logprobs import hidden_states, without_dropout
    from ramify.prompts.templates import encode
    from ramify.tree.pack import pack

    loaded = _loaded(model)
    ids = tuple(encode(loaded.tokenizer, text))[: loaded.max_length]
    row = pack([TokenSequence(ids, (0.0,) * len(ids))]).to(loaded.device)
    with without_dropout(loaded.network):
        states = hidden_states(loaded.network, row).float()
    return tuple(states.mean(0).tolist())


@lru_cache(maxsize=4)
def _loaded(model: str) -> LoadedModel:
    from ramify.model.load import load_model

    return load_model(model)
