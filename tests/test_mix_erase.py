"""Prompt erasure: what becomes of a system turn, and of which ones."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest

from ramify.base.config_mix import GENERIC_SYSTEM, Erase
from ramify.base.types import Message
from ramify.data.mix.erase import erase
from ramify.data.mix.records import Entry, Outcome

LONG = "You are a teacher.\n  Explain every step."
ASKED = (Message("user", "What is 2 + 2?"), Message("assistant", "4"))
BARE = Entry(ASKED, (1.0, 0.5))
TAUGHT = Entry((Message("system", LONG), *ASKED), (1.0, 1.0, 0.5))


def test_drop_leaves_no_system_turn() -> None:
    found = erase(TAUGHT, Erase(mode="drop"), 0, 1)
    assert (found.entry, found.original, found.outcome) == (BARE, LONG, Outcome.ERASED)


def test_replace_puts_the_generic_text_there_or_ones_own() -> None:
    found = erase(TAUGHT, Erase(), 0, 1)
    assert found.entry.system == GENERIC_SYSTEM
    assert found.entry.without_system() == BARE
    assert found.original == LONG
    assert erase(TAUGHT, Erase(text="Be brief."), 0, 1).entry.system == "Be brief."


def test_sample_draws_by_the_weights_and_an_empty_text_is_no_turn() -> None:
    settings = Erase(mode="sample", texts={"Be brief.": 3.0, "": 1.0})
    drawn = Counter(erase(TAUGHT, settings, 0, row).entry.system for row in range(4000))
    assert set(drawn) == {"Be brief.", None}
    assert abs(drawn["Be brief."] / 4000 - 0.75) < 0.03


def test_the_order_of_texts_decides_nothing() -> None:
    texts = {"Be brief.": 3.0, "": 1.0, "Be kind.": 2.0}
    both = [Erase(mode="sample", texts=dict(order)) for order in (texts.items(), reversed(texts.items()))]
    assert all(erase(TAUGHT, both[0], 0, row) == erase(TAUGHT, both[1], 0, row) for row in range(200))


@pytest.mark.parametrize("share", [0.0, 0.25, 1.0])
def test_a_share_of_the_rows_is_changed(share: float) -> None:
    outcomes = Counter(erase(TAUGHT, Erase(share=share), 3, row).outcome for row in range(4000))
    assert abs(outcomes[Outcome.ERASED] / 4000 - share) < 0.03
    assert outcomes[Outcome.ERASED] + outcomes[Outcome.KEPT] == 4000


def test_what_is_drawn_depends_on_seed_and_row_alone() -> None:
    def drawn(seed: int) -> list[Any]:
        settings = Erase(mode="sample", texts={"a": 1.0, "b": 1.0}, share=0.5)
        return [erase(TAUGHT, settings, seed, row).entry.system for row in range(64)]

    assert drawn(1) == drawn(1)
    assert drawn(1) != drawn(2)


@pytest.mark.parametrize(
    ("when", "changed"),
    [
        (("You are a teacher. Explain every step.",), True),  # white space is folded
        (("You are a teacher*",), True),
        (("*every*",), True),
        (("*",), True),
        (("You are a teacher.",), False),  # the whole text, or *
        (("You are a.*",), False),  # a dot is a dot
        (("you are a teacher*",), False),
        (("Other.", "*step."), True),
    ],
)
def test_only_named_texts_are_changed(when: tuple[str, ...], changed: bool) -> None:
    found = erase(TAUGHT, Erase(when=when), 0, 1)
    assert found.outcome is (Outcome.ERASED if changed else Outcome.OTHER)
    assert (found.entry == TAUGHT) is not changed
    assert (found.original == LONG) is changed


@pytest.mark.parametrize("mode", ["drop", "replace", "sample"])
def test_rows_without_a_system_turn_stay_as_they_are(mode: Any) -> None:
    settings = Erase(mode=mode, texts={"a": 1.0}) if mode == "sample" else Erase(mode=mode)
    found = erase(BARE, settings, 0, 1)
    assert (found.entry, found.original, found.outcome) == (BARE, None, Outcome.ABSENT)


def test_the_prompt_of_a_pair_is_erased() -> None:
    pair = Entry((Message("system", LONG), Message("user", "Why?")), answers=("So.", "No."))
    assert erase(pair, Erase(mode="drop"), 0, 1).entry == Entry((Message("user", "Why?"),), answers=("So.", "No."))
