"""The report of a comparison in a real browser: on a desk, on a phone, on paper, with bad text and with many problems.

Pictures and PDF files go to RAMIFY_ARTEFACTS, or else to the test's own folder.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import pytest
from report_setup import hostile_pair
from test_evaluate_report import write_evaluation

from ramify.base.config_file import parse_config
from ramify.base.records import write_json
from ramify.base.runs import create_run
from ramify.evaluate.compare.comparison import compare_runs
from ramify.evaluate.report.page import page, table
from ramify.evaluate.report.write import write_report

pytestmark = pytest.mark.proof
playwright = pytest.importorskip("playwright.sync_api", reason="pip install 'ramify[test]'")

WIDTHS = {1280: 900, 390: 844}
PAPER = 696  # A4 less its margins, in CSS pixels
OPTIONS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-background-networking",
)
SIDES = "e => { const r = e.getBoundingClientRect(); return [r.left, r.right] }"


@dataclass
class Tagged:
    """A tagged PDF as Chromium writes it: which element of the page lies on which sheet.

    Chromium writes the objects of the structure tree as plain text (PDF 32000-1, 14.7).
    """

    content: bytes
    elements: list[tuple[str, str]] = field(default_factory=list)

    @cached_property
    def objects(self) -> dict[str, str]:
        found = re.findall(rb"(?s)\n(\d+) 0 obj\n(<<.*?)\nendobj", self.content)
        return {number.decode(): body.decode("latin-1") for number, body in found if b"\nstream" not in body}

    def named(self, name: str) -> list[str]:
        """Elements of a name (TR, H2, …), in no order."""
        return [number for number, body in self.objects.items() if f"/StructElem\n/S /{name}\n" in body]

    def sheets(self, number: str) -> list[str]:
        """The sheets that an element's content lies on, in the order of its content."""
        body = self.objects[number]
        own = re.search(r"/Pg (\d+) 0 R", body)
        children = re.search(r"(?s)/K (\[.*?\]|\d+ 0 R|\d+)(?=\n|>>)", body)
        if children is None:
            return []
        found = []
        for page_of, reference, content in re.findall(r"/Pg (\d+) 0 R|(\d+) 0 R|(\d+)", children[1]):
            if page_of:
                found.append(page_of)
            elif reference:
                found += self.sheets(reference)
            elif content and own is not None:
                found.append(own[1])
        return found

    def reading(self) -> list[tuple[str, list[str], int]]:
        """(name, sheets, place of what follows it) of every element, in reading order."""
        found: list[tuple[str, list[str], int]] = []
        self._read(next(number for number, body in self.objects.items() if "/S /Document" in body), found)
        return found

    def _read(self, number: str, found: list[tuple[str, list[str], int]]) -> None:
        body, place = self.objects[number], len(found)
        name = re.search(r"/S /(\w+)", body)
        found.append(("", [], 0))
        children = re.search(r"(?s)/K (\[.*?\]|\d+ 0 R)(?=\n|>>)", body)
        for child in re.findall(r"(\d+) 0 R", re.sub(r"/Pg \d+ 0 R", "", children[1])) if children else []:
            if "/StructElem" in self.objects.get(child, ""):
                self._read(child, found)
        found[place] = (name[1] if name else "", self.sheets(number), len(found))

    @property
    def cut_rows(self) -> int:
        """Rows of tables that lie on two sheets; heads are repeated, and so lie on several."""
        heads = {found for cell in self.named("TH") for found in re.findall(r"/P (\d+) 0 R", self.objects[cell])}
        return sum(len(set(self.sheets(row))) > 1 for row in self.named("TR") if row not in heads)

    @property
    def lonely_headings(self) -> int:
        """Headings whose next content is on another sheet."""
        elements = self.reading()
        found = 0
        for name, sheets, end in elements:
            after = next((there for _, there, _ in elements[end:] if there), None)
            found += bool(re.fullmatch(r"H[1-4]", name) and sheets and after and after[0] != sheets[-1])
        return found


@dataclass
class Browser:
    """A browser, and what it asked for."""

    driver: Any
    requests: list[str] = field(default_factory=list)
    dialogs: list[str] = field(default_factory=list)

    def open(self, path: Path, width: int, scripts: bool = True) -> Any:
        context = self.driver.new_context(
            viewport={"width": width, "height": WIDTHS.get(width, 1000)}, java_script_enabled=scripts
        )
        tab = context.new_page()
        tab.on("request", lambda request: self.requests.append(request.url))
        tab.on("dialog", lambda dialog: (self.dialogs.append(dialog.message), dialog.dismiss()))
        tab.goto(path.resolve().as_uri())
        return tab

    def pdf(self, path: Path, target: Path) -> Tagged:
        """The page on A4."""
        self.open(path, PAPER).pdf(path=str(target), prefer_css_page_size=True, format="A4", tagged=True)
        return Tagged(target.read_bytes())


@pytest.fixture
def browser(chromium: str) -> Iterator[Browser]:
    with playwright.sync_playwright() as driver:
        opened = driver.chromium.launch(executable_path=chromium, args=[*OPTIONS])
        try:
            yield Browser(opened)
        finally:
            opened.close()


@pytest.fixture
def hostile(tmp_path: Path) -> Path:
    """5,000 problems, bad text everywhere."""
    write_report(tmp_path / "hostile.html", compare_runs(hostile_pair(tmp_path / "bad", 5000)))
    return tmp_path / "hostile.html"


@pytest.fixture
def usual(tmp_path: Path) -> Path:
    """A base model, a prompt, and a training with two seeds, with curves and refusals."""
    names = [write_evaluation(tmp_path / name, right=set(range(n)), n=120) for name, n in (("base", 9), ("prompt", 60))]
    for seed in (1, 2):
        run = create_run(tmp_path / f"sft-seed-{seed}", parse_config({"method": "sft", "seed": seed}))
        for step in range(1, 400):
            run.log("train", step=step, loss=(3.0 + step % 7 / 9) / step**0.5)
            if step % 50 == 0:
                run.log("eval", step=step, loss=3.2 / step**0.5)
        rounds = [{"questions": 50, "samples": 200, "pass_rate": 0.41, "refused": {"wrong": 118}}]
        write_json(run.folder / "yield.json", {"rounds": rounds})
        run.update(status="finished", steps=399, training_seconds=61.2, trained_tokens=48211.0)
        write_evaluation(run.folder / "eval", right=set(range(4, 80 + seed)), n=120)
        names.append(run.folder)
    write_report(tmp_path / "usual.html", compare_runs(names))
    return tmp_path / "usual.html"


def check(browser: Browser, report: Path, pictures: Path) -> None:
    """At both widths: nothing sticks out, nothing is fetched, no script is needed or run; on paper nothing is cut."""
    texts = []
    for width in WIDTHS:
        tab = browser.open(report, width, scripts=width == 390)
        root = "document.documentElement"
        assert tab.evaluate(f"{root}.scrollWidth") <= width
        left, right = tab.eval_on_selector("main", SIDES)
        for low, high in tab.eval_on_selector_all("article, figure, h1, h2, h3, p, li", f"all => all.map({SIDES})"):
            assert left - 1 <= low <= high <= right + 1
        tab.screenshot(path=str(pictures / f"{report.stem}-{width}.png"), full_page=True)
        texts.append(re.sub(r"\s+", "", tab.evaluate("document.querySelector('main').textContent")))
    assert texts[0] == texts[1] and len(texts[0]) > 2000
    assert set(browser.requests) == {report.resolve().as_uri()} and not browser.dialogs
    tab = browser.open(report, PAPER)
    tab.emulate_media(media="print")
    assert tab.evaluate("document.documentElement.scrollWidth") <= PAPER
    tab.screenshot(path=str(pictures / f"{report.stem}-paper.png"), full_page=True)
    paper = browser.pdf(report, pictures / f"{report.stem}.pdf")
    assert len(paper.named("TR")) > 5 and len(paper.named("H2")) > 5
    assert paper.cut_rows == 0 and paper.lonely_headings == 0


def test_a_report_fits_desk_phone_and_paper(browser: Browser, usual: Path, pictures: Path) -> None:
    check(browser, usual, pictures)
    paper = browser.pdf(usual, pictures / "usual.pdf")
    assert len(set(paper.sheets(paper.named("Document")[0]))) > 1
    rows = browser.open(usual, 390).locator("tr").count()
    assert len(paper.named("TR")) >= rows  # folded tables are printed too; a head may come again on the next sheet


def test_hostile_text_stays_text_and_5000_problems_stay_light(browser: Browser, hostile: Path, pictures: Path) -> None:
    check(browser, hostile, pictures)
    tab = browser.open(hostile, 1280)
    assert tab.title().endswith("compared") and "owned" not in tab.title()
    assert tab.locator("h1").count() == 1 and tab.locator("script, img, a, iframe, b b, style").count() == 1
    assert tab.locator("main article").count() <= 8
    for box in tab.locator("article").all():  # an answer may be long, yet not without end
        assert box.bounding_box()["height"] < 1500
    counted = tab.evaluate("document.querySelectorAll('*').length")
    seconds = tab.evaluate("performance.getEntriesByType('navigation')[0].domComplete") / 1000
    print(f"\n{hostile.stat().st_size:,} bytes, {counted:,} elements, complete after {seconds:.3f} s")
    assert hostile.stat().st_size < 300_000 and counted < 3000


def test_text_that_turns_round_leaves_its_neighbours_where_they_are(browser: Browser, hostile: Path) -> None:
    tab = browser.open(hostile, 1280)
    corner = "e => { const r = [...e.getClientRects()]; return [r[0].top, r[0].left, r.at(-1).top, r.at(-1).right] }"
    seen = 0
    for head in tab.locator("article h4").all():
        title, gold = (head.locator(each).first.evaluate(corner) for each in ("> bdi", "> .gold"))
        assert gold[0] > title[2] or gold[1] >= title[3] - 1  # the gold answer comes after the question
        seen += 1
    assert seen == 8


def test_a_row_that_is_cut_and_a_heading_alone_are_noticed(browser: Browser, tmp_path: Path) -> None:
    rows = [[f"{i}", "word " * 400] for i in range(30)]
    html = page("t", "<h2>One</h2>" + table(["", "text"], rows, words=(1,)))
    (tmp_path / "cut.html").write_text(html.replace("break-inside:avoid", ""), encoding="utf-8")
    assert browser.pdf(tmp_path / "cut.html", tmp_path / "cut.pdf").cut_rows > 0
    (tmp_path / "whole.html").write_text(html, encoding="utf-8")
    assert browser.pdf(tmp_path / "whole.html", tmp_path / "whole.pdf").cut_rows == 0
    alone = page("t", "<h2 style='break-after:page'>One</h2><p>Two</p><h2>Three</h2><p>Four</p>")
    (tmp_path / "alone.html").write_text(alone, encoding="utf-8")
    assert browser.pdf(tmp_path / "alone.html", tmp_path / "alone.pdf").lonely_headings == 1
