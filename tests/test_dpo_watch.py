"""What goes wrong quietly in preference optimisation is said once."""

from __future__ import annotations

from typing import Any

from ramify.train.watch import PreferenceWatch


def line(chosen: float, margin: float, lengths: tuple[float, float] = (10.0, 10.0), longer: float = 0.0) -> Any:
    values = {"reward_chosen": chosen, "margin": margin, "margin_of_longer": longer}
    return {**values, "length_chosen": lengths[0], "length_rejected": lengths[1]}


def said(watch: PreferenceWatch, *rows: Any) -> list[str]:
    return [note for row in rows for note in watch(row)]


def test_falling_chosen_completions_are_said_once() -> None:
    falling = line(-0.5, 0.6)
    watch = PreferenceWatch()
    assert not said(watch, line(0.0, 0.0), falling, falling, line(0.1, 0.6), falling, falling)  # not three running
    [note] = said(watch, falling)
    assert "become less likely while the margin grows (reward 0.00 → -0.50, margin 0.00 → 0.60)" in note
    assert not said(watch, line(0.1, 0.6), falling, falling, falling)
    assert not said(PreferenceWatch(), *[line(0.0, 0.0)] * 2, *[line(-0.5, 0.05)] * 5)  # the margin does not grow
    resumed = PreferenceWatch([line(0.0, 0.0), falling, falling])
    assert len(said(resumed, falling)) == 1
    assert not said(PreferenceWatch([line(0.0, 0.0), *[falling] * 3]), falling)


def test_a_margin_that_follows_the_length_is_said_once() -> None:
    long, alike = line(0.3, 0.5, (40.0, 20.0), 0.5), line(0.3, 0.5, (40.0, 20.0), 0.1)
    [note] = said(PreferenceWatch(), *[long] * 6)
    assert "40 tokens on average, rejected ones 20, and the margin follows the length" in note
    assert len(said(PreferenceWatch(), *[line(0.3, 0.5, (20.0, 40.0), -0.5)] * 3)) == 1
    assert not said(PreferenceWatch(), *[alike] * 6)
    assert not said(PreferenceWatch(), *[line(0.3, 0.5, (40.0, 38.0), 0.5)] * 6)
