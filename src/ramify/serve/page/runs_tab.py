"""The tab that reads run folders: a training as it goes on, what an evaluation found, the report."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ramify.base.errors import RamifyError
from ramify.serve.page.context import Page
from ramify.serve.page.run_folder import Metrics, evaluations, find_runs, run_inside, state
from ramify.serve.page.run_view import evaluation_view, made_report, progress_view, written_report
from ramify.serve.page.sessions import Session
from ramify.serve.page.style import status
from ramify.serve.page.widgets import gradio

_SECONDS = 2.0
"""Between two looks at a run that may be going on."""
_WRITTEN = "written: "


class Runs:
    """What the tab shows, for all tabs of all browsers."""

    def __init__(self, root: Path) -> None:
        self._root, self._metrics = root, Metrics()

    def names(self) -> list[str]:
        """Runs to choose from, the newest first."""
        return find_runs(self._root)

    def reports(self, name: str | None) -> list[str]:
        """Reports to choose from: those written beside the run, and the ones that can be made with another run."""
        if not name:
            return []
        written = [path.relative_to(self._root).as_posix() for path in self._written(name)]
        evaluated = [each for each in self.names() if each != name and evaluations(self._root / each)]
        mine = evaluated if evaluations(self._root / name) else []
        return [_WRITTEN + path for path in written] + mine

    def show(self, session: Session, name: str | None) -> tuple[str, str]:
        """Progress and evaluation of a run, or why there is none."""
        session.seen = None
        return self.look(session, name) or ("", "")

    def look(self, session: Session, name: str | None) -> tuple[str, str] | None:
        """The same, or None where nothing has changed since this session looked last."""
        try:
            folder = run_inside(self._root, name)
            now = (name, state(folder))
            if now == session.seen:
                return None
            shown = progress_view(folder, self._metrics.rows(folder)), evaluation_view(folder)
        except RamifyError as error:
            return status(str(error), failed=True), ""
        session.seen = now
        return shown

    def report(self, name: str | None, chosen: str | None) -> str:
        """A report in its frame, or why there is none."""
        try:
            if not chosen:
                return ""
            after = run_inside(self._root, name)
            if chosen.startswith(_WRITTEN):
                written = {_WRITTEN + path.relative_to(self._root).as_posix(): path for path in self._written(name)}
                return written_report(written[chosen]) if chosen in written else ""
            return made_report(run_inside(self._root, chosen), after)
        except RamifyError as error:
            return status(str(error), failed=True)

    def _written(self, name: str | None) -> list[Path]:
        """Reports in the folder of a run and in those above it, up to the root."""
        folder = run_inside(self._root, name)
        above = [folder, *(each for each in folder.parents if each.is_relative_to(self._root))]
        return [path for each in above for path in sorted(each.glob("*report*.html")) if path.is_file()]


def build_runs_tab(page: Page, tab: Any) -> None:
    """Put the tab together; call it inside the page."""
    gr = gradio()
    runs = Runs(page.runs)
    with gr.Row(elem_id="runs-bar"):
        choice = gr.Dropdown([], label=f"Run in {page.runs}", scale=6, min_width=200, elem_id="runs-choice")
        again = gr.Button("Look again", size="sm", scale=1, min_width=90, elem_id="runs-again")
    progress = gr.HTML("", elem_id="runs-progress")
    found = gr.HTML("", elem_id="runs-evaluation")
    against = gr.Dropdown(
        [], label="Before and after: a written report, or the run to compare with", elem_id="runs-against"
    )
    report = gr.HTML("", elem_id="runs-report")
    timer = gr.Timer(_SECONDS, active=False)
    _wire(page, runs, tab, [choice, again, against, timer], [progress, found, report])


def _wire(page: Page, runs: Runs, tab: Any, asking: list[Any], outputs: list[Any]) -> None:
    gr = gradio()
    choice, again, against, timer = asking
    progress, found, report = outputs

    def enters(session: Session, name: str | None) -> list[Any]:
        names = runs.names()
        chosen = name if name in names else next(iter(names), None)
        shown = runs.show(session, chosen) if chosen else (status("there is no run yet"), "")
        return [gr.Dropdown(choices=names, value=chosen), gr.Timer(active=True), _reports(runs, chosen), *shown]

    def shows(session: Session, name: str | None) -> list[Any]:
        return [_reports(runs, name), *runs.show(session, name), ""]

    def ticks(session: Session, name: str | None) -> Any:
        return (runs.look(session, name) if name else None) or (gr.skip(), gr.skip())

    def reports(session: Session, name: str | None, chosen: str | None) -> str:
        return runs.report(name, chosen)

    for event in (tab.select, again.click):
        page.on("runs", event, enters, [choice], [choice, timer, against, progress, found])
    page.on("run", choice.input, shows, [choice], [against, progress, found, report])
    page.on("look", timer.tick, ticks, [choice], [progress, found])
    page.on("report", against.input, reports, [choice, against], report)


def _reports(runs: Runs, name: str | None) -> Any:
    try:
        names = runs.reports(name)
    except RamifyError:
        names = []
    return gradio().Dropdown(choices=names, value=None)
