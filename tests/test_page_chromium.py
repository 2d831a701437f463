"""The page in a real browser: a whole visit. Skipped where Chromium, or a voice for the microphone, is missing.

Pictures of both widths go to RAMIFY_ARTEFACTS, or else to the test's own folder.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import wave
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from page_setup import events_of, free_port, shown, until
from speech_setup import samples_of, spoken, word_error
from test_evaluate_report import write_evaluation
from test_page_runs import trained
from train_setup import tiny_folder

from ramify.base.records import read_jsonl

pytestmark = pytest.mark.proof
pytest.importorskip("gradio", reason="pip install 'ramify[chat]'")
playwright = pytest.importorskip("playwright.sync_api", reason="pip install 'ramify[test]'")

WIDTHS = {390: 844, 1280: 900}
SECONDS = 240
SLOW = {"hidden_size": 512, "num_hidden_layers": 8, "intermediate_size": 1024, "max_position_embeddings": 2048}
POLICY = re.compile(r"'(\S+)' violates the following Content Security Policy")
"""How the browser says that it was about to ask for something, and did not."""
SPOKEN = "he opened the door and walked into the kitchen"
OPTIONS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--use-fake-device-for-media-stream",
    "--use-fake-ui-for-media-stream",
    "--host-resolver-rules=MAP * ~NOTFOUND , EXCLUDE 127.0.0.1",
)
# Python runs this in every process that is started with its folder on the path: each host that is asked for is noted.
WATCH = """
import os, sys
def watch(event, arguments):
    if event in ("socket.connect", "socket.getaddrinfo"):
        to = arguments[1] if event == "socket.connect" else arguments
        if isinstance(to, tuple):  # else a socket of this machine's file system
            with open(os.environ["RAMIFY_WATCHED"], "a") as file:
                file.write(f"{to[0]}\\n")
sys.addaudithook(watch)
"""


class Machine:
    """A folder that a person works in, with the processes that run in it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.runs, self.watched = folder / "runs", folder / "watched.txt"
        (folder / "watch").mkdir()
        (folder / "watch" / "sitecustomize.py").write_text(WATCH)
        self.watched.touch()

    @contextmanager
    def running(self, *arguments: object) -> Iterator[subprocess.Popen[bytes]]:
        """`ramify …` for as long as the block lasts."""
        environment = {**os.environ, "RAMIFY_WATCHED": str(self.watched), "PYTHONPATH": str(self.folder / "watch")}
        command = [sys.executable, "-m", "ramify", *map(str, arguments)]
        with (self.folder / f"{arguments[0]}.log").open("ab") as log:
            process = subprocess.Popen(command, cwd=self.folder, env=environment, stdout=log, stderr=log)
        try:
            yield process
        finally:
            process.terminate()
            process.wait(60)

    def run(self, *arguments: object) -> None:
        with self.running(*arguments) as process:
            assert process.wait(600) == 0, self.log(str(arguments[0]))

    def log(self, command: str) -> str:
        return (self.folder / f"{command}.log").read_text(errors="replace")[-3000:]

    @contextmanager
    def page(self, *arguments: object) -> Iterator[str]:
        """The address of `ramify ui`."""
        port = free_port()
        with self.running("ui", *arguments, "--port", port) as process:

            def answers() -> bool:
                assert process.poll() is None, self.log("ui")
                try:
                    return httpx.get(f"http://127.0.0.1:{port}/config").status_code == 200
                except httpx.TransportError:
                    return False

            until(answers, "the page")
            yield f"http://127.0.0.1:{port}/"

    def rows(self) -> list[dict[str, Any]]:
        path = self.runs / "feedback.jsonl"
        return [row for _, row in read_jsonl(path)] if path.exists() else []


class Visitor:
    """A browser tab, and every address it asked for."""

    def __init__(self, context: Any, address: str) -> None:
        self.tab = context.new_page()
        self.address = address
        self.requests: list[str] = []
        self.dialogs: list[str] = []
        self.asked = 0
        self.blocked: set[str] = set()
        self.tab.on("request", lambda request: self.requests.append(request.url))
        self.tab.on("console", lambda message: self.blocked.update(POLICY.findall(message.text)))
        self.tab.on("dialog", lambda dialog: (self.dialogs.append(dialog.message), dialog.dismiss()))
        self.tab.set_default_timeout(SECONDS * 1000)
        self.tab.goto(address)
        self.tab.wait_for_selector("#chat-box textarea")

    def ask(self, text: str) -> None:
        self.asked = self.tab.locator("#chat-log .turn.user").count()
        self.tab.fill("#chat-box textarea", text)
        self.tab.click("#chat-send")

    def answer(self, number: int = -1) -> str:
        found = self.tab.locator("#chat-log .turn.assistant .text").all_inner_texts()
        return str(found[number]) if found else ""

    def status(self) -> str:
        return str(self.tab.inner_text("#chat-status")).strip()

    def finished(self) -> None:
        """Wait for the end of the answer to what was asked."""

        def ended() -> bool:
            shown = self.tab.locator("#chat-log .turn.user").count() > self.asked
            return shown and not self.status().endswith("…") and self.tab.is_visible("#chat-send")

        until(ended, "the end of an answer")

    def set(self, name: str, value: object) -> None:
        """Turn a slider by its number."""
        number = f"#set-{name} input[type=number]"
        self.tab.fill(number, str(value))
        self.tab.press(number, "Tab")

    def choose(self, model: str) -> None:
        self.tab.fill("#chat-model input", model)
        self.tab.press("#chat-model input", "Enter")
        self.tab.locator("#chat-opened", has_text=f"{model} is ready").wait_for()

    def open(self, name: str) -> None:
        self.tab.click(f"#tab-{name}-button")

    def check_stayed_here(self) -> None:
        """Nothing was asked of any other host."""
        own = (self.address, "data:", "blob:")
        strangers = {url for url in self.requests if not url.startswith(own)} - self.blocked
        assert self.requests and not strangers and not self.dialogs

    def picture(self, folder: Path, name: str) -> None:
        """A picture at each width, where nothing sticks out."""
        for width, height in WIDTHS.items():
            self.tab.set_viewport_size({"width": width, "height": height})
            self.tab.evaluate("scrollTo(0, document.body.scrollHeight)")  # a frame is painted once it was in sight
            self.tab.wait_for_timeout(400)
            assert self.tab.evaluate("document.documentElement.scrollWidth") <= width, f"{name} at {width}"
            self.tab.screenshot(path=str(folder / f"page-{name}-{width}.png"), full_page=True)


def recording(folder: Path) -> Path:
    """What the fake microphone hears: a sentence with silence around it, 48 kHz, mono, 16 bits."""
    rate, samples = samples_of(spoken(SPOKEN, folder / "spoken.wav"))
    assert rate == 16_000
    steps = np.arange(3 * len(samples)) / 3
    high = np.interp(steps, np.arange(len(samples)), samples).astype(np.int16)
    silence = np.zeros(24_000, np.int16)
    path = folder / "microphone.wav"
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(48_000)
        file.writeframes(np.concatenate([silence, high, silence, silence]).tobytes())
    return path


@contextmanager
def browser(program: str, *options: str) -> Iterator[Any]:
    """A browser with permission to use its (fake) microphone."""
    with playwright.sync_playwright() as driver:
        opened = driver.chromium.launch(executable_path=program, args=[*OPTIONS, *options])
        context = opened.new_context(permissions=["microphone"], viewport={"width": 1280, "height": 900})
        try:
            yield context
        finally:
            opened.close()


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    """A person's folder with a trained, evaluated and exported run, and a model that never stops by itself."""
    made = Machine(tmp_path)
    tiny_folder(tmp_path / "slow", **SLOW)
    made.run("train", "--out", "runs/tuned", "task.rows=64", "train.max_steps=4", "data.train=task")
    made.run("eval", "runs/tuned", "--n", "16")
    made.run("eval", "nano", "--n", "16", "--out", "runs/base")
    made.run("export", "runs/tuned", "--to", "gguf", "--quant", "f16,q8_0", "--out", "runs/files")
    return made


def test_a_visit(chromium: str, machine: Machine, pictures: Path, shared: Path) -> None:
    microphone = f"--use-file-for-fake-audio-capture={recording(machine.folder)}%noloop"
    with machine.page("nano", "runs/tuned", "slow") as address, browser(chromium, microphone) as context:
        visitor = Visitor(context, address)
        visitor.picture(pictures, "empty")
        _chat(visitor, machine, pictures)
        _speak(visitor, shared, pictures)
        _compare(visitor, machine, pictures)
        _watch(visitor, machine, pictures)
        other = Visitor(context, address)
        assert other.answer() == ""  # another tab has another conversation
        for each in (visitor, other):
            each.check_stayed_here()
    hosts = set(machine.watched.read_text().split())
    assert hosts <= {"127.0.0.1", "localhost", "::1", "None"}, hosts


def _chat(visitor: Visitor, machine: Machine, pictures: Path) -> None:
    """Type, stream, stop, change the model, judge."""
    tab = visitor.tab
    visitor.ask("How many g are in 2 kg?")
    visitor.finished()
    assert visitor.answer() and "nano" in visitor.status()
    visitor.choose("slow")
    visitor.set("max_new_tokens", 1500)
    visitor.set("temperature", 0)
    visitor.ask("Tell me a very long story.")
    tab.wait_for_selector("#chat-stop:visible")
    sizes: set[int] = set()
    until(lambda: sizes.add(len(visitor.answer())) or len(sizes - {0}) >= 4, "an answer that grows")
    tab.click("#chat-stop")
    visitor.finished()
    assert visitor.status().startswith("slow") and "stopped" in visitor.status()
    written = visitor.answer()
    tab.wait_for_timeout(500)
    assert visitor.answer() == written
    visitor.set("max_new_tokens", 64)
    visitor.set("temperature", 0.7)
    tab.click("#chat-undo")
    until(lambda: tab.input_value("#chat-box textarea") == "Tell me a very long story.", "the question in the box")
    visitor.choose("runs/tuned")
    visitor.ask("How many m are in 3 km?")
    visitor.finished()
    assert "runs/tuned" in visitor.status()
    tab.click("#chat-undo")
    until(lambda: tab.input_value("#chat-box textarea") == "How many m are in 3 km?", "the question again")
    visitor.choose("runs/files:q8_0")  # the same model, read by llama.cpp
    visitor.ask("How many m are in 3 km?")
    visitor.finished()
    assert "runs/files:q8_0" in visitor.status() and "3" in visitor.answer()
    visitor.picture(pictures, "gguf")
    tab.set_viewport_size({"width": 1280, "height": 900})
    answered = visitor.answer()
    tab.click("#chat-bad")
    until(lambda: tab.input_value("#judge-draft textarea").strip() == answered, "the answer to be corrected")
    visitor.picture(pictures, "judging")
    tab.fill("#judge-draft textarea", "It is 3000 m.")
    tab.click("#judge-keep")
    (row,) = until(machine.rows, "a row of preferences")
    assert (row["chosen"], row["rejected"].strip()) == ("It is 3000 m.", answered)
    assert row["prompt"][-1] == {"role": "user", "content": "How many m are in 3 km?"}
    until(lambda: visitor.answer() == "It is 3000 m.", "the corrected answer in the conversation")
    visitor.picture(pictures, "chat")


def _speak(visitor: Visitor, shared: Path, pictures: Path) -> None:
    """Record, attach, correct, send."""
    tab = visitor.tab
    tab.set_viewport_size({"width": 1280, "height": 900})
    tab.fill("#chat-box textarea", "")
    tab.click("#speech button.label-wrap")
    tab.click("#speech-audio .record-button")
    tab.wait_for_timeout(5000)
    tab.click("#speech-audio .stop-button:visible")
    heard = until(lambda: tab.input_value("#chat-box textarea"), "a transcript of the microphone")
    assert word_error(SPOKEN, heard) <= 0.5, heard
    visitor.picture(pictures, "speech")
    tab.set_viewport_size({"width": 1280, "height": 900})
    visitor.ask(f"{heard}?")
    visitor.finished()
    assert f"{heard}?" in tab.inner_text("#chat-log")
    tab.click("#speech-audio [aria-label=Clear]")
    tab.click("#speech-audio [aria-label='Upload file']")
    tab.set_input_files("#speech-audio input[type=file]", str(shared / "data" / "speech" / "jfk.wav"))
    words = until(lambda: tab.input_value("#chat-box textarea"), "a transcript of the file").split()
    assert len({*words} & {"ask", "not", "what", "your", "country", "can", "do", "for", "you"}) >= 5, words
    tab.fill("#chat-box textarea", "")


def _compare(visitor: Visitor, machine: Machine, pictures: Path) -> None:
    """One prompt, two models, one preference."""
    tab = visitor.tab
    visitor.open("compare")
    tab.fill("#compare-box textarea", "How many g are in 4 kg?")
    tab.click("#compare-ask")
    tab.locator("#compare-status", has_text="Which one is better?").wait_for()
    left, right = (tab.input_value(f"#compare-{side} textarea") for side in ("left", "right"))
    assert left and right
    visitor.picture(pictures, "compare")
    before = len(machine.rows())
    tab.click("#compare-left-better")
    until(
        lambda: "kept" in tab.inner_text("#compare-status") or "cut off" in tab.inner_text("#compare-status"), "a row"
    )
    if "kept" in tab.inner_text("#compare-status"):
        assert len(machine.rows()) == before + 1 and machine.rows()[-1]["chosen"] == left


def _watch(visitor: Visitor, machine: Machine, pictures: Path) -> None:
    """A training that runs beside the page, then an evaluated run and a report."""
    tab = visitor.tab
    settings = ("data.train=task", "task.rows=2000", "train.max_steps=2000", "train.batch_size=8")
    with machine.running("train", "--out", "runs/live", *settings):
        until((machine.runs / "live" / "metrics.jsonl").exists, "a training")
        visitor.open("runs")
        tab.locator("#runs-progress", has_text="Training").wait_for()
        tab.fill("#runs-choice input", "live")
        tab.press("#runs-choice input", "Enter")
        curve = "#runs-progress polyline.train"
        first = until(lambda: tab.locator(curve).count() and tab.get_attribute(curve, "points"), "a loss curve")
        until(lambda: len((tab.get_attribute(curve, "points") or "").split()) >= len(first.split()) + 5, "a live curve")
        visitor.picture(pictures, "live")
    tab.fill("#runs-choice input", "tuned")
    tab.press("#runs-choice input", "Enter")
    tab.locator("#runs-evaluation", has_text="answered").wait_for()
    tab.locator("#runs-evaluation", has_text="Export files").wait_for()
    assert {"F16", "Q8_0"} <= {*tab.locator("#runs-evaluation td:first-child").all_inner_texts()}
    tab.fill("#runs-against input", "base")
    tab.press("#runs-against input", "Enter")
    frame = tab.frame_locator("#runs-report iframe")
    frame.locator("h1", has_text="Before and after").wait_for()
    visitor.picture(pictures, "runs")


EVIL = (
    "<img src='http://203.0.113.9/a.png' onerror='alert(1)'><script>alert(2)</script>"
    "![x](http://203.0.113.9/b.png) [y](javascript:alert(3)) **bold** $$x^2$$ <b>b</b> &lt;i&gt; {{seed}} ${{seed}}"
)


def test_hostile_text_stays_text(chromium: str, tmp_path: Path, pictures: Path) -> None:
    run = trained(tmp_path / "runs" / EVIL.replace("/", "|")[:100], model=EVIL)
    write_evaluation(run.folder / "eval", right={1}, question=EVIL)
    (run.folder / "report.html").write_text(f"<h1>Report</h1>{EVIL}<form action='http://203.0.113.9'></form>")
    with shown(tmp_path, a=EVIL) as address, browser(chromium) as context:
        visitor = Visitor(context, address)
        tab = visitor.tab
        visitor.ask(EVIL)
        visitor.finished()
        assert visitor.answer() == EVIL.format(seed=42)
        assert tab.inner_text("#chat-log").count("**bold** $$x^2$$ <b>b</b>") == 2
        made = (
            "#chat-log img[src*='203.0'], #chat-log script, #chat-log b, #chat-log .katex, #chat-log a[href*='script']"
        )
        assert tab.locator(made).count() == 0
        visitor.open("runs")
        tab.locator("#runs-evaluation", has_text="first 12 of 40").wait_for()
        assert tab.locator("#runs-progress img, #runs-evaluation img, #runs-evaluation script").count() == 0
        tab.click("#runs-against input")
        tab.get_by_role("option").first.click()
        tab.frame_locator("#runs-report iframe").locator("h1", has_text="Report").wait_for()
        tab.wait_for_timeout(1000)
        visitor.picture(pictures, "hostile")
        visitor.check_stayed_here()
        assert visitor.blocked == {"http://203.0.113.9/a.png"}  # in the report, and only asked of the policy


def test_a_tab_that_leaves_in_the_middle_of_an_answer_frees_its_model(chromium: str, tmp_path: Path) -> None:
    waiting = {"text": "one two three", "gate": True}
    with shown(tmp_path, a=waiting, b="yes", c="no") as address, browser(chromium) as context:
        leaving = Visitor(context, address)
        leaving.ask("count")
        until(lambda: leaving.answer() == "one", "the first word")
        leaving.tab.close()
        until(lambda: "cancelled a" in events_of(tmp_path), "the end of what nobody reads")
        staying = Visitor(context, address)
        for name in "bc":  # two places for three models: that of the first one must be free again
            staying.choose(name)
        until(lambda: "closed a" in events_of(tmp_path), "the first model's place")
