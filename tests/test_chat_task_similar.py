"""The rule `similar`: what a model's hidden states tell of two texts, and what they do not."""

from __future__ import annotations

import pytest
import torch

from ramify.base.errors import ModelError
from ramify.base.types import Message, Problem, Reason, Sample, Stop
from ramify.model.load import load_model
from ramify.tasks.chat.finding import Answer
from ramify.tasks.chat.rules import parse_rules
from ramify.tasks.chat.similar import BACKGROUND, similarity
from ramify.tasks.chat.task import Chat

TRIPLES = [  # a text, the same in other words, and something else
    ("The capital of France is Paris.", "Paris is the capital of France.", "My dog likes to swim."),
    ("There are 6000 grams in 6 kg.", "6 kg is 6000 grams.", "The sky is blue today."),
    ("I am sorry, I cannot help with that.", "Sorry, but I can't assist with this.", "The cat sleeps on the sofa."),
    ("It will rain tomorrow in the north.", "Tomorrow there will be rain in the north.", "He reads three books."),
    ("Seven times eight is fifty-six.", "Eight times seven makes fifty-six.", "She walked along the river."),
    ("The train to Berlin leaves at noon.", "At noon the train leaves for Berlin.", "Water boils at 100 degrees."),
]
HARDER = [
    ("You are welcome, I am happy to help.", "It was a pleasure to help you.", "There are 1000 grams in a kilogram."),
    ("Cats like to sleep.", "A cat is an animal which sleeps a lot.", "Please send me the report by Friday."),
    ("Add the flour and mix it with butter.", "Mix the butter with flour.", "The king lived in a castle."),
    ("Good morning! How are you today?", "Hello, how are you doing this morning?", "A meter has 100 centimeters."),
]


@pytest.mark.parametrize(("text", "reworded", "other"), TRIPLES, ids=range(len(TRIPLES)))
def test_the_same_in_other_words_is_closer_than_something_else(text: str, reworded: str, other: str) -> None:
    assert similarity("nano", reworded, text) > similarity("nano", other, text) + 0.1


def test_most_rewordings_are_found() -> None:
    """The figure in docs/rules.md is eight of ten; one is close enough to depend on the type of the weights."""
    closer = [similarity("nano", b, a) > similarity("nano", c, a) for a, b, c in TRIPLES + HARDER]
    assert len(closer) == 10
    assert sum(closer) >= 7


def test_equal_texts_have_1_and_white_space_does_not_count() -> None:
    assert similarity("nano", "It is\n Paris.", " It is Paris.") == pytest.approx(1)
    assert similarity("nano", "", "It is Paris.") == 0


def test_what_is_right_is_not_seen() -> None:
    """The limit that the documentation states: a number more or less moves an embedding hardly at all."""
    assert similarity("nano", "It is 7.", "It is 8.") > 0.9


def test_it_is_the_cosine_of_mean_hidden_states_of_transformers() -> None:
    loaded = load_model("nano")

    def state(text: str) -> torch.Tensor:
        ids = torch.tensor([loaded.tokenizer(text, add_special_tokens=False)["input_ids"]])
        with torch.no_grad():
            return loaded.network(input_ids=ids, output_hidden_states=True).hidden_states[-1][0].float().mean(0)

    shared = torch.stack([state(text) for text in BACKGROUND]).mean(0)
    first, second = (state(text) - shared for text in TRIPLES[0][:2])
    expected = float(torch.nn.functional.cosine_similarity(first, second, dim=0))
    assert similarity("nano", *TRIPLES[0][:2]) == pytest.approx(expected, abs=0.02)


def test_the_rule_asks_for_a_threshold() -> None:
    text, reworded, other = TRIPLES[1]
    (rule,) = parse_rules([{"similar": {"text": [text], "at_least": 0.3, "model": "nano"}}], "x")
    assert rule.ask(Answer(reworded)).holds
    found = rule.ask(Answer(other))
    assert not found.holds and found.final and "similarity -0." in found.seen
    assert not rule.ask(Answer(reworded, ended=False)).final


def test_a_model_that_cannot_be_had_stops_the_run() -> None:
    rules = ({"similar": {"text": "a", "at_least": 0.5, "model": "no/such-folder/at-all"}},)
    problem = Problem("p", (Message("user", "?"),), rules=rules)
    with pytest.raises(ModelError):
        Chat().grade(problem, Sample("p", 0, (), (), "a b", Stop.EOS))
    assert Chat().grade(problem, Sample("p", 0, (), (), " ", Stop.EOS)).reason is Reason.NO_ANSWER


def test_two_models_are_each_loaded_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rules of two models take turns at every answer; loading takes longer than all else."""
    loads = []

    def counted(name: str) -> object:
        loads.append(name)
        return load_model("nano", dtype="fp32", device="cpu")

    monkeypatch.setattr("ramify.model.load.load_model", counted)
    for text in ("It is open.", "It is closed."):
        for name in ("counted-one", "counted-two"):
            similarity(name, text, "The door is open.")
    assert loads == ["counted-one", "counted-two"]
