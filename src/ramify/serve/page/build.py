"""The page: three tabs, and a column of settings that two of them share."""

from __future__ import annotations

from typing import Any

from ramify.serve.page.chat_tab import build_chat_tab
from ramify.serve.page.compare_tab import build_compare_tab
from ramify.serve.page.context import Page
from ramify.serve.page.controls import build_controls
from ramify.serve.page.runs_tab import build_runs_tab
from ramify.serve.page.sessions import Session
from ramify.serve.page.widgets import gradio

_HEAD = "<div id='title'><h1>Ramify</h1><span>models of this machine: chat, compare, watch them train</span></div>"
_HOURS = 3600
"""Seconds between two looks for uploads to throw away, and how old they are then."""


def build_page(page: Page) -> Any:
    """The page as Gradio's `Blocks`; `launch` shows it.

    Raises:
        ConfigError: Gradio is not installed.
    """
    gr = gradio()
    with gr.Blocks(title="Ramify", analytics_enabled=False, delete_cache=(_HOURS, _HOURS)) as blocks:
        gr.HTML(_HEAD)
        with gr.Row():
            with gr.Column(scale=3, min_width=300), gr.Tabs(elem_id="tabs"):
                chat = gr.Tab("Chat", id="chat", elem_id="tab-chat")
                compare = gr.Tab("Side by side", id="compare", elem_id="tab-compare")
                runs = gr.Tab("Runs", id="runs", elem_id="tab-runs")
            with gr.Column(scale=1, min_width=260, elem_id="settings") as side:
                controls = build_controls()
        with chat:
            models = build_chat_tab(page, controls)
        with compare:
            models += build_compare_tab(page, controls)
        with runs:
            build_runs_tab(page, runs)
        page.on("models", blocks.load, _lists(page, len(models)), [], models)
        for tab in (chat, compare, runs):
            page.on("settings", tab.select, _shows(tab is not runs), [], side)
        blocks.unload(_leaves(page))
    return blocks


def _lists(page: Page, count: int) -> Any:
    """Whoever comes later finds the runs that were made since."""

    def lists(session: Session) -> Any:
        names = page.choices()
        return [gradio().Dropdown(choices=names) for _ in range(count)]

    return lists


def _shows(visible: bool) -> Any:
    def shows(session: Session) -> Any:
        return gradio().Column(visible=visible)

    return shows


def _leaves(page: Page) -> Any:
    """The tab is closed: what was being written for it ends."""

    def leaves(request: Any) -> None:
        page.sessions.forget(request.session_hash)

    leaves.__annotations__["request"] = gradio().Request
    return leaves
