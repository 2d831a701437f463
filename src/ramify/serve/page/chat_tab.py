"""The tab one chats in: its widgets, and what of `chat` each of them calls."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ramify.base.errors import RamifyError
from ramify.serve.page.chat import Chat, Panel, View
from ramify.serve.page.context import Page
from ramify.serve.page.controls import Controls, manner
from ramify.serve.page.sessions import Session
from ramify.serve.page.style import status, turns_html
from ramify.serve.page.widgets import gradio

_AUDIO = ("microphone", "upload")
_EMPTY = "<p class='status'>Ask something.</p>"
_GOOD = "What would be worse? Draw another answer, or write one. Both are kept as a row for training."
_BAD = "How should it have been? Change the answer, or draw another. Both are kept as a row for training."


@dataclass(frozen=True)
class _Widgets:
    """What handlers read and change."""

    model: Any
    opened: Any
    log: Any
    now: Any
    box: Any
    send: Any
    stop: Any
    said: Any
    panel: Any
    asked: Any
    draft: Any
    kept: Any

    @property
    def view(self) -> list[Any]:
        """Outputs of `_view`."""
        return [self.log, self.now, self.box, self.send, self.stop, self.said]

    @property
    def judging(self) -> list[Any]:
        """Outputs of `_panel`."""
        return [self.panel, self.asked, self.draft, self.kept]


def build_chat_tab(page: Page, controls: Controls) -> list[Any]:
    """Put the tab together; call it inside the page.

    Returns:
        its lists of models.
    """
    gr = gradio()
    chat = Chat(page.cabinet, page.feedback)
    model = model_choice(page, "Model", "chat-model", page.first)
    opened = gr.HTML(status(""), elem_id="chat-opened")
    with gr.Column(elem_id="chat-log"), gr.Column():  # shown from its end, so that what is being written stays in sight
        log = gr.HTML(_EMPTY, elem_id="chat-turns")
        now = gr.HTML("", elem_id="chat-now")
    said = gr.HTML(status(""), elem_id="chat-status")
    with gr.Row(equal_height=True):
        box = gr.Textbox(
            placeholder="Write a message",
            show_label=False,
            container=False,
            lines=1,
            max_lines=8,
            scale=8,
            min_width=180,
            autofocus=True,
            elem_id="chat-box",
        )
        send = gr.Button("Send", variant="primary", scale=1, min_width=72, elem_id="chat-send")
        stop = gr.Button("Stop", variant="stop", scale=1, min_width=72, visible=False, elem_id="chat-stop")
    with gr.Row(elem_id="chat-buttons"):
        names = {"good": "Good", "bad": "Bad", "retry": "Retry", "undo": "Undo", "clear": "Clear"}
        buttons = {key: gr.Button(name, size="sm", min_width=44, elem_id=f"chat-{key}") for key, name in names.items()}
    kept = gr.HTML(status(""), elem_id="judge-status")
    with gr.Column(visible=False, elem_id="judge") as panel:
        asked = gr.HTML("", elem_id="judge-asked")
        draft = gr.Textbox(show_label=False, lines=3, max_lines=16, elem_id="judge-draft")
        with gr.Row():
            draw = gr.Button("Draw another", size="sm", min_width=80, elem_id="judge-draw")
            keep = gr.Button("Keep both", size="sm", variant="primary", min_width=80, elem_id="judge-keep")
            drop = gr.Button("Close", size="sm", min_width=60, elem_id="judge-drop")
    widgets = _Widgets(model, opened, log, now, box, send, stop, said, panel, asked, draft, kept)
    _speech(page, widgets)
    _wire(page, chat, controls, widgets, buttons)
    _wire_judging(page, chat, controls, widgets, {**buttons, "draw": draw, "keep": keep, "drop": drop})
    return [model]


def model_choice(page: Page, label: str, elem_id: str, first: str | None) -> Any:
    """A list of models; other names may be typed in where that is allowed."""
    gr = gradio()
    info = "A run, a model, a GGUF file, or REPO, Q4" if page.typed else None
    return gr.Dropdown(
        page.choices(),
        value=first,
        label=label,
        info=info,
        allow_custom_value=page.typed,
        elem_id=elem_id,
    )


def _wire(page: Page, chat: Chat, controls: Controls, widgets: _Widgets, buttons: dict[str, Any]) -> None:
    asking = [widgets.model, *controls.widgets]

    def opens(session: Session, name: str) -> Iterator[Any]:
        try:
            for text, failed in chat.open(page.allowed(name)):
                yield status(text, failed)
        except RamifyError as error:
            yield status(str(error), failed=True)

    def sends(session: Session, question: str, name: str, *values: Any) -> Iterator[list[Any]]:
        yield from _views(chat, session, question, page, name, values, retry=False)

    def retries(session: Session, name: str, *values: Any) -> Iterator[list[Any]]:
        yield from _views(chat, session, None, page, name, values, retry=True)

    page.on("open", widgets.model.input, opens, [widgets.model], widgets.opened)
    for event in (widgets.box.submit, widgets.send.click):
        page.on("send", event, sends, [widgets.box, *asking], widgets.view)
    page.on("retry", buttons["retry"].click, retries, asking, widgets.view)
    page.on("stop", widgets.stop.click, lambda session: session.stop(), [], None)
    page.on("undo", buttons["undo"].click, lambda session: _view(chat.undo(session)), [], widgets.view)
    page.on("clear", buttons["clear"].click, lambda session: _view(chat.clear(session)), [], widgets.view)


def _wire_judging(page: Page, chat: Chat, controls: Controls, widgets: _Widgets, buttons: dict[str, Any]) -> None:
    def draws(session: Session, name: str, *values: Any) -> Iterator[list[Any]]:
        try:
            for panel in chat.draw(session, page.allowed(name), manner(*values)):
                yield _panel(panel)
        except RamifyError as error:
            yield _panel(Panel(session.asked, note=str(error), failed=True))

    def keeps(session: Session, draft: str) -> list[Any]:
        panel = chat.keep(session, draft)
        return [*_panel(panel), turns_html(chat.view(session).turns)]

    page.on("good", buttons["good"].click, lambda session: _panel(chat.judge(session, True)), [], widgets.judging)
    page.on("bad", buttons["bad"].click, lambda session: _panel(chat.judge(session, False)), [], widgets.judging)
    page.on("draw", buttons["draw"].click, draws, [widgets.model, *controls.widgets], widgets.judging)
    page.on("keep", buttons["keep"].click, keeps, [widgets.draft], [*widgets.judging, widgets.log])
    page.on("drop", buttons["drop"].click, lambda session: _panel(chat.drop(session)), [], widgets.judging)


def _speech(page: Page, widgets: _Widgets) -> None:
    """A recording becomes text in the box, to be read and changed before it is sent."""
    gr = gradio()
    with gr.Accordion("Speak, or attach a recording", open=False, elem_id="speech"):
        audio = gr.Audio(
            sources=list(_AUDIO), type="filepath", show_label=False, editable=False, buttons=[], elem_id="speech-audio"
        )
        heard = gr.HTML(status(""), elem_id="speech-status")

    def hears(session: Session, path: str | None, written: str) -> Iterator[tuple[Any, Any]]:
        if path is None:
            return
        yield gr.skip(), status("listening …")
        try:
            found = page.transcribe(Path(path))
        except RamifyError as error:
            yield gr.skip(), status(str(error), failed=True)
            return
        text = f"{written.rstrip()} {found.text}".strip()
        yield (
            text,
            status(" · ".join(part for part in (f"{found.seconds:.1f} s", found.recogniser, found.note) if part)),
        )

    for event in (audio.stop_recording, audio.upload):
        page.on("hear", event, hears, [audio, widgets.box], [widgets.box, heard])


def _views(
    chat: Chat, session: Session, question: str | None, page: Page, name: str, values: Sequence[Any], retry: bool
) -> Iterator[list[Any]]:
    try:
        model, how = page.allowed(name), manner(*values)
    except RamifyError as error:
        yield _view(chat.view(session, str(error), failed=True))
        return
    views = chat.retry(session, model, how) if retry else chat.send(session, question or "", model, how)
    for view in views:
        yield _view(view)


def _view(view: View) -> list[Any]:
    """As `_Widgets.view`. While an answer is written only the last exchange is sent, not the whole conversation."""
    gr = gradio()
    writing = 0 if not view.running else 1 if view.turns[-1][0] == "user" else 2
    settled = view.turns[: len(view.turns) - writing]
    return [
        gr.skip() if writing == 2 else turns_html(settled, _EMPTY if not view.turns else ""),
        turns_html(view.turns[len(settled) :]),
        gr.skip() if view.box is None else view.box,
        gr.Button(visible=not view.running),
        gr.Button(visible=view.running),
        status(view.status, view.failed),
    ]


def _panel(panel: Panel) -> list[Any]:
    """As `_Widgets.judging`."""
    gr = gradio()
    question = "" if panel.judged is None else _GOOD if panel.judged.good else _BAD
    return [
        gr.Column(visible=panel.judged is not None),
        status(question),
        gr.skip() if panel.draft is None else panel.draft,
        status(panel.note, panel.failed),
    ]
