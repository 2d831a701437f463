"""A report in a real browser: it fits a phone and a desk, and fetches nothing. Skipped where Chromium is missing."""

from __future__ import annotations

import json
import re
import struct
import subprocess
from html import unescape
from pathlib import Path
from typing import Any

import pytest
from test_evaluate_report import write_evaluation

from ramify.base.config import RunConfig
from ramify.base.records import write_json
from ramify.base.runs import create_run
from ramify.evaluate.compare.comparison import compare_runs
from ramify.evaluate.report.write import write_report

WIDTHS = (390, 1280)
OPTIONS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-background-networking",
    "--disable-component-update",
    "--no-first-run",
    "--hide-scrollbars",
    "--virtual-time-budget=3000",
)
# The page lies in a frame of the width asked for: some builds open no window narrower than 500 pixels.
FRAME = """<!doctype html><meta charset="utf-8"><body style="margin:0">
<iframe id="page" style="border:0;width:{width}px;height:2000px" srcdoc="{page}"></iframe>
<pre id="seen"></pre>
<script>
addEventListener("load", () => {{
  const inner = document.getElementById("page").contentWindow, root = inner.document.documentElement;
  document.getElementById("seen").textContent = JSON.stringify({{
    window: inner.innerWidth,
    width: root.scrollWidth,
    height: root.scrollHeight,
    text: inner.document.body.innerText.length,
    requests: inner.performance.getEntriesByType("resource").map((each) => each.name),
  }});
}});
</script>
"""


def browse(chromium: str, page: Path, folder: Path, *options: str) -> str:
    profile = f"--user-data-dir={folder / 'profile'}"
    command = [chromium, *OPTIONS, profile, *options, page.resolve().as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


def measured(chromium: str, html: str, width: int, folder: Path) -> dict[str, Any]:
    """What the browser says about a page in a window of that width."""
    frame = folder / f"frame-{width}.html"
    escaped = html.replace("&", "&amp;").replace('"', "&quot;")
    frame.write_text(FRAME.format(width=width, page=escaped), encoding="utf-8")
    shown = browse(chromium, frame, folder, "--window-size=1400,2000", "--dump-dom")
    match = re.search(r'<pre id="seen">(.+?)</pre>', shown)
    assert match is not None, shown[-500:]
    seen: dict[str, Any] = json.loads(unescape(match[1]))
    return seen


def check_page(chromium: str, report: Path, folder: Path) -> None:
    """At each width: nothing sticks out, nothing is fetched, and a picture comes out."""
    html = report.read_text(encoding="utf-8")
    for width in WIDTHS:
        seen = measured(chromium, html, width, folder)
        assert seen["window"] == width and seen["width"] <= width, seen
        assert seen["requests"] == [] and seen["text"] > 500, seen
        picture = folder / f"report-{width}.png"
        browse(chromium, report, folder, f"--window-size={width},1600", f"--screenshot={picture}")
        content = picture.read_bytes()
        assert content.startswith(b"\x89PNG") and struct.unpack(">II", content[16:24])[1] == 1600
        assert len(content) > 20_000  # an empty page packs to a few thousand bytes


@pytest.fixture
def report(tmp_path: Path) -> Path:
    """A base model, and a run with curves, refusals and long lines."""
    base = write_evaluation(tmp_path / "base", right=set(range(4)), question="How many " + "very " * 60 + "small g in")
    run = create_run(tmp_path / "a-run-with-quite-a-long-name-that-somebody-chose", RunConfig())
    for step in range(1, 31):
        run.log("train", step=step, loss=3.0 / step)
    write_json(
        run.folder / "yield.json",
        {"rounds": [{"questions": 50, "samples": 200, "pass_rate": 0.4, "refused": {"wrong": 118}}]},
    )
    tuned = write_evaluation(
        run.folder / "eval", right=set(range(2, 30)), question="How many " + "very " * 60 + "small g in"
    )
    write_report(tmp_path / "report.html", compare_runs([base, tuned.parent]))
    return tmp_path / "report.html"


def test_a_report_fits_its_window_and_fetches_nothing(chromium: str, report: Path, tmp_path: Path) -> None:
    check_page(chromium, report, tmp_path)


def test_a_page_that_sticks_out_and_fetches_is_noticed(chromium: str, tmp_path: Path) -> None:
    page = "<body><main><div style='width:900px'>wide</div><img src='http://127.0.0.1:9/x.png'></main></body>"
    seen = measured(chromium, page, 390, tmp_path)
    assert seen["width"] >= 900 and seen["requests"] == ["http://127.0.0.1:9/x.png"]


@pytest.mark.proof
def test_the_report_of_the_demo_fits_its_window_and_fetches_nothing(chromium: str, tmp_path: Path) -> None:
    from ramify.demo.run import DemoOptions, run_demo

    run_demo(DemoOptions(tmp_path / "demo", quick=True))
    check_page(chromium, tmp_path / "demo" / "report.html", tmp_path)
