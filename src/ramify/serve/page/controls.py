"""The column of settings: system prompt, and how answers are drawn."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ramify.base.config import RunConfig
from ramify.serve.manners import CHAT
from ramify.serve.page.talk import Manner, sampling_of
from ramify.serve.page.widgets import gradio

_SLIDERS = (
    ("max_new_tokens", "Max new tokens", 1, 2048, 1),
    ("temperature", "Temperature", 0.0, 4.0, 0.05),
    ("top_p", "Top-p", 0.05, 1.0, 0.05),
    ("top_k", "Top-k (0: all)", 0, 200, 1),
    ("min_p", "Min-p", 0.0, 1.0, 0.01),
    ("repetition_penalty", "Repetition penalty", 0.5, 2.0, 0.05),
)
"""Setting of `sample`, label, lowest, highest, step."""


@dataclass(frozen=True)
class Controls:
    """The widgets of the column, in the order in which `manner` takes their values."""

    widgets: tuple[Any, ...]


def build_controls() -> Controls:
    """Put the column together; call it inside the page."""
    gr = gradio()
    system = gr.Textbox(
        label="System prompt", placeholder="That of the run, if it has one", lines=2, max_lines=8, elem_id="set-system"
    )
    sliders = [
        gr.Slider(low, high, value=getattr(CHAT, name), step=step, label=label, elem_id=f"set-{name}")
        for name, label, low, high, step in _SLIDERS
    ]
    seed = gr.Number(
        value=RunConfig().seed, precision=0, minimum=0, label="Seed (empty: another one each time)", elem_id="set-seed"
    )
    return Controls((system, *sliders, seed))


def manner(system: str | None, *values: float | None) -> Manner:
    """What the widgets are set to.

    Raises:
        ConfigError: a value is out of range.
    """
    *drawn, seed = values
    given = {name: value for (name, *_), value in zip(_SLIDERS, drawn, strict=True) if value is not None}
    return Manner((system or "").strip(), sampling_of(**given), None if seed is None else int(seed))
