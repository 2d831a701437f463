"""Who may ask: names, pages, keys; what is logged; what a command line refuses before a model is loaded."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator

import httpx
import pytest
from cli_setup import ramify
from serve_http_setup import CHAT, said, scripted, serving

from ramify.base.errors import ConfigError
from ramify.cli.serve import announce
from ramify.serve.http.app import Access, build
from ramify.serve.http.guard import Entry
from ramify.serve.http.process import bind, is_private, url_of

KEY = "a key of the test"
PAGE = "http://localhost:3000"


@pytest.fixture(scope="module")
def log() -> list[Entry]:
    return []


@pytest.fixture(scope="module")
def server(log: list[Entry]) -> Iterator[httpx.Client]:
    access = Access(hosts=frozenset({"Models.example"}), origins=frozenset({PAGE}))
    with serving(scripted(), access=access, tell=log.append) as client:
        yield client


@pytest.fixture(scope="module")
def locked() -> Iterator[httpx.Client]:
    with serving(scripted(), access=Access(key=KEY)) as client:
        yield client


@pytest.mark.parametrize(
    "host", ["localhost", "localhost:80", "LOCALHOST.", "127.0.0.1:9", "[::1]:8000", "models.example"]
)
def test_names_of_the_server_are_answered(server: httpx.Client, host: str) -> None:
    assert server.get("/v1/models", headers={"host": host}).status_code == 200


@pytest.mark.parametrize(
    "host",
    ["evil.example", "evil.example:8000", "localhost.evil.example", "127.0.0.1.evil.example", "[evil", "@", "x:y"],
)
def test_other_names_are_refused(server: httpx.Client, host: str) -> None:
    """A page whose name was made to point here sends its name."""
    for method, path in (("GET", "/v1/models"), ("GET", "/health"), ("POST", CHAT)):
        answer = server.request(method, path, headers={"host": host})
        assert answer.status_code == 403
        assert answer.json()["error"]["code"] == "host_not_allowed"


@pytest.mark.parametrize(
    "origin", ["http://evil.example", "null", "http://localhost:3001", "https://localhost:3000", "x", "http://["]
)
def test_other_pages_are_refused(server: httpx.Client, origin: str) -> None:
    answer = server.post(CHAT, json=said("hi"), headers={"origin": origin})
    assert answer.status_code == 403
    assert "access-control-allow-origin" not in answer.headers


def test_pages_that_were_let_in_are_answered(server: httpx.Client) -> None:
    asked = {"origin": PAGE, "access-control-request-method": "POST", "access-control-request-headers": "content-type"}
    assert server.options(CHAT, headers=asked).headers["access-control-allow-origin"] == PAGE
    answer = server.post(CHAT, json=said("hi"), headers={"origin": PAGE})
    assert answer.status_code == 200
    assert answer.headers["access-control-allow-origin"] == PAGE


def test_without_being_asked_no_page_is_let_in(locked: httpx.Client) -> None:
    asked = {"origin": PAGE, "access-control-request-method": "POST"}
    answer = locked.options(CHAT, headers=asked)
    assert answer.status_code == 403
    assert not [name for name in answer.headers if name.startswith("access-control")]


def test_a_page_of_the_server_itself_is_its_own(server: httpx.Client) -> None:
    own = f"http://{server.base_url.host}:{server.base_url.port}"
    assert server.get("/health", headers={"origin": own}).status_code == 200


@pytest.mark.parametrize(
    "authorization",
    [
        None,
        "",
        "Bearer",
        f"Basic {KEY}",
        "Bearer a key of the tesT",
        f"Bearer {KEY}x",
        KEY,
        b"Bearer \xff\xfe",
    ],
)
def test_without_the_key_nothing_is_told(locked: httpx.Client, authorization: str | bytes | None) -> None:
    headers = {} if authorization is None else {"authorization": authorization}
    for method, path in (("GET", "/v1/models"), ("POST", CHAT), ("GET", "/nothing")):
        answer = locked.request(method, path, headers=headers)
        assert answer.status_code == 401
        assert answer.headers["www-authenticate"] == "Bearer"
        assert answer.json()["error"]["code"] == "invalid_api_key"
        assert KEY not in answer.text


def test_with_the_key_requests_are_answered(locked: httpx.Client) -> None:
    for scheme in ("Bearer", "bearer"):
        assert locked.get("/v1/models", headers={"authorization": f"{scheme} {KEY}"}).status_code == 200


def test_health_needs_no_key_and_names_no_model(locked: httpx.Client) -> None:
    assert locked.get("/health").json() == {"status": "ok", "active": 0, "waiting": 0}


def wait_for(log: list[Entry], entries: int) -> None:
    """An entry is written behind the last byte of the answer."""
    while len(log) < entries:
        time.sleep(0.005)


def test_the_log_has_one_entry_a_request_and_no_contents(server: httpx.Client, log: list[Entry]) -> None:
    log.clear()
    server.post(f"{CHAT}?secret=1", json=said("a secret"))
    wait_for(log, 1)
    server.get("/a%0Ab%1B[31m")
    wait_for(log, 2)
    first, second = log
    assert (first.client, first.method, first.path, first.status) == ("127.0.0.1", "POST", CHAT, 200)
    assert (second.path, second.status) == ("/a%0Ab%1B%5B31m", 404)
    assert first.seconds > 0
    assert "secret" not in f"{first}"


@pytest.mark.parametrize("key", ["", " ", "a\nb", "schlüssel", " key", "key "])
def test_keys_that_no_header_holds_are_refused(key: str) -> None:
    with pytest.raises(ConfigError, match="API key"):
        Access(key=key)


@pytest.mark.parametrize("origin", ["localhost:3000", "http://localhost:3000/", ""])
def test_what_is_no_origin_is_refused(origin: str) -> None:
    with pytest.raises(ConfigError, match="origin"):
        Access(origins=frozenset({origin}))


def test_two_models_of_one_name_are_refused() -> None:
    with pytest.raises(ConfigError, match="two models are called 'echo'"):
        build([scripted(), scripted()])
    with pytest.raises(ConfigError, match="no model"):
        build([])


def test_addresses_are_private_or_not() -> None:
    for host, private in (("127.0.0.1", True), ("localhost", True), ("0.0.0.0", False)):
        with bind(host, 0) as bound:
            assert is_private(bound) is private
            assert url_of(bound).startswith("http://")


@pytest.mark.parametrize(
    ("host", "key", "warned"), [("0.0.0.0", None, True), ("0.0.0.0", KEY, False), ("127.0.0.1", None, False)]
)
def test_an_open_door_is_told(host: str, key: str | None, warned: bool, capsys: pytest.CaptureFixture[str]) -> None:
    with bind(host, 0) as bound:
        announce(bound, Access(key=key), [scripted()])
    error = capsys.readouterr().err
    assert ("set RAMIFY_API_KEY" in error) is warned
    assert f"{host}:" in error
    assert KEY not in error


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("nano", "--host", "203.0.113.7"), "203.0.113.7:8000 cannot be used"),
        (("nano", "--host", "no such name"), "no address of this machine"),
        (("nano", "--api-key-env", "RAMIFY_NO_SUCH_KEY"), "RAMIFY_NO_SUCH_KEY is not set"),
        (("nano", "--timeout", "0"), "timeout = 0"),
        (("nano", "--cors", "localhost"), "is no origin"),
        (("nano", "nano"), "nano is named twice"),
        (("nano", "other", "--adapter", "x"), "--adapter goes with one MODEL"),
    ],
)
def test_what_cannot_be_served_is_refused_before_a_model_is_loaded(
    arguments: tuple[str, ...], message: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, error = ramify(monkeypatch, capsys, "serve", *arguments)
    assert (code, out) == (2, "")
    assert message in error


def test_a_port_that_is_taken_is_refused(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        code, _, error = ramify(monkeypatch, capsys, "serve", "nano", "--port", taken.getsockname()[1])
    assert code == 2
    assert "hint: --port 0" in error
