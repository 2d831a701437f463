"""The page over HTTP: what it asks the browser to allow, who may see it, where it is shown, and a chat through it."""

from __future__ import annotations

import json
import re
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from html import unescape
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import pytest
from cli_setup import ramify
from page_setup import free_port, guarded, shown

from ramify.base.errors import ConfigError
from ramify.base.records import read_jsonl
from ramify.serve.page.launch import Place, check_place, read_auth
from ramify.serve.page.style import status

pytest.importorskip("gradio", reason="pip install 'ramify[chat]'")
CONTROLS = ("", 20, 0.7, 1.0, 0, 0.0, 1.0, 5)
PASSWORD = "correct horse"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("page")


@pytest.fixture(scope="module")
def address(folder: Path) -> Iterator[str]:
    """A page with two scripted models; another one asks for a password."""
    with shown(folder, f"ada:{PASSWORD}", a="it is {seed}", b="<b>about</b> {seed}") as address:
        yield address


class Tab:
    """A browser tab, as far as the server knows."""

    def __init__(self, address: str) -> None:
        self._api, self._key = f"{address}gradio_api", uuid4().hex
        dependencies = httpx.get(f"{address}config").json()["dependencies"]
        self._numbers = {each["api_name"]: each["id"] for each in dependencies}
        self.states = 0

    def call(self, name: str, *values: Any) -> list[Any]:
        """What an event ends with; `states` counts what it showed before."""
        asked = {"data": values, "fn_index": self._numbers[name], "session_hash": self._key}
        httpx.post(f"{self._api}/queue/join", json=asked).raise_for_status()
        self.states = 0
        with httpx.stream("GET", f"{self._api}/queue/data", params={"session_hash": self._key}, timeout=60) as lines:
            for line in lines.iter_lines():
                message = json.loads(line.removeprefix("data: ")) if line else {}
                self.states += message.get("msg") == "process_generating"
                if message.get("msg") == "process_completed":
                    assert message["success"], message
                    return list(message["output"]["data"])
        raise AssertionError("the server hung up")


@pytest.fixture
def tab(address: str) -> Tab:
    return Tab(address)


def texts(html: str) -> list[tuple[str, str]]:
    """(role, text) of the turns that are shown."""
    found = re.findall(r"<div class='turn (\w+)'><div class='text'>(.*?)</div></div>", html, re.DOTALL)
    return [(role, unescape(text)) for role, text in found]


def test_the_browser_is_told_to_fetch_nothing_from_elsewhere(address: str) -> None:
    page = httpx.get(address)
    policy = page.headers["content-security-policy"]
    assert "default-src 'self'" in policy and "http:" not in policy and "https:" not in policy and "*" not in policy
    config = httpx.get(f"{address}config").json()
    assert config["analytics_enabled"] is False and config["footer_links"] == [] and not config["run_history"]
    assert "fonts.googleapis.com" not in httpx.get(f"{address}theme.css").text


def test_what_tests_and_people_touch_has_a_name(address: str) -> None:
    parts = httpx.get(f"{address}config").json()["components"]
    named = {each["props"].get("elem_id") for each in parts}
    wanted = "chat-model chat-box chat-send chat-stop chat-good chat-bad chat-log judge-draft judge-keep speech-audio"
    wanted += " compare-left compare-right runs-choice runs-report set-system set-max_new_tokens set-temperature"
    wanted += " set-top_p set-top_k set-min_p set-repetition_penalty set-seed"
    assert set(wanted.split()) <= named


def test_a_chat_streams_and_a_judgement_lands_in_the_file(tab: Tab, folder: Path) -> None:
    assert texts(tab.call("send", "how much?", "a", *CONTROLS)[0]) == [("user", "how much?"), ("assistant", "it is 5")]
    assert tab.states >= 3
    assert tab.call("bad")[2] == "it is 5"
    assert texts(tab.call("keep", "It is six.")[-1])[1] == ("assistant", "It is six.")
    rows = [row for _, row in read_jsonl(folder / "feedback.jsonl")]
    assert (rows[-1]["chosen"], rows[-1]["rejected"]) == ("It is six.", "it is 5")


def test_tabs_have_conversations_of_their_own(address: str) -> None:
    def talks(number: int) -> list[tuple[str, str]]:
        tab = Tab(address)
        tab.call("send", f"tab {number}", "a", *CONTROLS)
        return texts(tab.call("send", "more", "b", *CONTROLS)[0])

    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(talks, range(4)))
    assert [turns[0] for turns in found] == [("user", f"tab {number}") for number in range(4)]
    assert all(turns[3] == ("assistant", "<b>about</b> 5") for turns in found)


def test_two_models_answer_side_by_side(tab: Tab) -> None:
    assert tab.call("compare", "how much?", "a", "b", *CONTROLS)[:2] == ["it is 5", "<b>about</b> 5"]
    assert "b was better" in tab.call("better_right")[-1]


def test_settings_out_of_range_are_an_answer_and_not_a_crash(tab: Tab) -> None:
    cold = ("", 20, 0.00001, 1.0, 0, 0.0, 1.0, 5)
    assert "0.0001" in tab.call("send", "how much?", "a", *cold)[-1]
    assert "no such model" in tab.call("send", "how much?", "c", *CONTROLS)[-1]


def test_a_status_is_text() -> None:
    assert status("<img src=x onerror=alert(1)>") == (
        "<p class='status' role='status'>&lt;img src=x onerror=alert(1)&gt;</p>"
    )


def test_a_password_is_asked_for_where_there_is_one(folder: Path) -> None:
    with httpx.Client(base_url=guarded(folder)) as visitor:
        assert visitor.get("/config").status_code == 401
        assert visitor.post("/login", data={"username": "ada", "password": "wrong"}).status_code == 400
        assert visitor.post("/login", data={"username": "ada", "password": PASSWORD}).status_code == 200
        assert visitor.get("/config").status_code == 200


def test_others_are_let_in_with_a_password_only() -> None:
    for place in (Place("0.0.0.0"), Place("::"), Place("example.org"), Place(share=True)):
        with pytest.raises(ConfigError) as refused:
            check_place(place)
        assert "--auth" in str(refused.value)
    check_place(Place("localhost", free_port()))
    check_place(Place("0.0.0.0", free_port(), (("ada", PASSWORD),)))
    with pytest.raises(ConfigError, match="not an address"):
        check_place(Place("nowhere.invalid", free_port(), (("ada", PASSWORD),)))


def test_users_come_from_a_file_or_the_environment_and_never_from_the_command_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "users"
    file.write_text(f"ada:{PASSWORD}\n\nbob:a:b\n")
    assert read_auth(str(file)) == (("ada", PASSWORD), ("bob", "a:b"))
    monkeypatch.setenv("PAGE_USERS", "ada:secret")
    assert read_auth("PAGE_USERS") == (("ada", "secret"),)
    for text in ("", "ada", "ada:", ":secret"):
        monkeypatch.setenv("PAGE_USERS", text)
        with pytest.raises(ConfigError, match="USER:PASSWORD"):
            read_auth("PAGE_USERS")
    with pytest.raises(ConfigError) as refused:
        read_auth("ada:secret")
    assert "secret" not in str(refused.value)


def test_a_busy_port_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        code, out, err = ramify(monkeypatch, capsys, "ui", "--port", port)
    assert (
        code == 2
        and not out
        and err.splitlines()
        == [
            f"error: 127.0.0.1:{port}: in use",
            "hint: choose another one with --port",
        ]
    )
    code, _, err = ramify(monkeypatch, capsys, "ui", "--host", "0.0.0.0")
    assert code == 2 and len(err.splitlines()) == 2 and "--auth" in err
