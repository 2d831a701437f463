"""The tab that asks two models the same."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from ramify.base.errors import RamifyError
from ramify.serve.page.chat_tab import model_choice
from ramify.serve.page.compare import Comparison, Sides
from ramify.serve.page.context import Page
from ramify.serve.page.controls import Controls, manner
from ramify.serve.page.sessions import Session
from ramify.serve.page.style import status
from ramify.serve.page.widgets import gradio

_SIDES = ("left", "right")


def build_compare_tab(page: Page, controls: Controls) -> list[Any]:
    """Put the tab together; call it inside the page.

    Returns:
        its lists of models.
    """
    gr = gradio()
    comparison = Comparison(page.cabinet, page.feedback)
    names = (page.first, page.choices()[:2][-1])
    box = gr.Textbox(label="Prompt", lines=2, max_lines=8, elem_id="compare-box")
    with gr.Row():
        ask = gr.Button("Ask both", variant="primary", min_width=90, elem_id="compare-ask")
        stop = gr.Button("Stop", variant="stop", min_width=90, interactive=False, elem_id="compare-stop")
    models, texts, notes, better = [], [], [], []
    with gr.Row():
        for side, name in zip(_SIDES, names, strict=True):
            with gr.Column(min_width=280):
                models.append(model_choice(page, side.capitalize(), f"compare-{side}-model", name))
                texts.append(
                    gr.Textbox(
                        label="Answer", lines=8, max_lines=20, interactive=False, elem_id=f"compare-{side}", buttons=[]
                    )
                )
                notes.append(gr.HTML(status(""), elem_id=f"compare-{side}-note"))
                better.append(gr.Button("This one is better", size="sm", elem_id=f"compare-{side}-better"))
    said = gr.HTML(status(""), elem_id="compare-status")
    outputs = [*texts, *notes, ask, stop, said]

    def asks(session: Session, question: str, left: str, right: str, *values: Any) -> Iterator[list[Any]]:
        try:
            names, how = (page.allowed(left), page.allowed(right)), manner(*values)
        except RamifyError as error:
            yield _sides(Sides(status=str(error), failed=True))
            return
        for sides in comparison.ask(session, question, names, how):
            yield _sides(sides)

    page.on("compare", ask.click, asks, [box, *models, *controls.widgets], outputs)
    page.on("compare_stop", stop.click, lambda session: session.stop(), [], None)
    for side, button in zip(_SIDES, better, strict=True):
        page.on(f"better_{side}", button.click, _prefers(comparison, side == "left"), [], outputs)
    return models


def _prefers(comparison: Comparison, left: bool) -> Any:
    return lambda session: _sides(comparison.prefer(session, left))


def _sides(sides: Sides) -> list[Any]:
    """Both texts, both notes, both buttons, the status."""
    gr = gradio()
    texts = [gr.skip(), gr.skip()] if sides.texts is None else list(sides.texts)
    return [
        *texts,
        *map(status, sides.notes),
        gr.Button(interactive=not sides.running),
        gr.Button(interactive=sides.running),
        status(sides.status, sides.failed),
    ]
