"""The own server asked as an endpoint: the same problems over HTTP as in this process."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from cli_setup import ramify
from serve_http_setup import Served
from serve_http_setup import process as serving_process

from ramify.base.records import read_jsonl
from ramify.base.runs import Run

pytestmark = pytest.mark.proof
KEY = "a-key-of-the-server"
COMMON = ("--task", "unit_conversion", "--n", "8", "--max-new-tokens", "24")


@pytest.fixture(scope="module")
def served() -> Iterator[Served]:
    """nano behind `ramify serve`, with a key, two at once and little room to wait."""
    options = ("--port", "0", "--dtype", "fp32", "--device", "cpu", "--parallel", "2", "--queue", "2")
    with serving_process("-m", "ramify", "serve", "nano", *options, RAMIFY_API_KEY=KEY) as server:
        yield server


def texts(folder: Path) -> list[str]:
    return [row["text"] for _, row in read_jsonl(folder / "samples.jsonl")]


def test_the_own_server_gives_what_the_own_engine_gives(
    served: Served, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Greedy, so that the draws of the server need not be those of the engine; six at once, of which four find room."""
    monkeypatch.setenv("THE_KEY", KEY)
    here, there = tmp_path / "own", tmp_path / "endpoint"
    code, _, told = ramify(monkeypatch, capsys, "eval", "nano", *COMMON, "--out", here, "train.dtype=fp32")
    assert code == 0, told
    at = (f"endpoint.base_url={served.url}/v1", "endpoint.key_env=THE_KEY", "endpoint.parallel=6")
    code, _, told = ramify(monkeypatch, capsys, "eval", "nano", "--engine", "openai", *at, *COMMON, "--out", there)
    assert code == 0, told
    assert texts(here) == texts(there)
    own, other = (Run(folder).record for folder in (here, there))
    assert own["hashes"]["problems"] == other["hashes"]["problems"]
    counted = [len(row["token_ids"]) for _, row in read_jsonl(here / "samples.jsonl")]
    assert other["usage"]["requests"] - other["usage"]["repeated"] == 8
    assert other["usage"]["completion_tokens"] in range(sum(counted) - 8, sum(counted) + 1)  # stop tokens, or not
    code, _, told = ramify(monkeypatch, capsys, "compare", here, there)
    assert code == 0, told


def test_its_refusals_are_said_in_one_line(
    served: Served, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("THE_KEY", KEY)
    monkeypatch.setenv("WRONG_KEY", "not-that-one")
    at = f"endpoint.base_url={served.url}/v1"
    for model, more, said in (
        ("nano", "endpoint.key_env=WRONG_KEY", "401 Unauthorized"),
        ("nana", "endpoint.key_env=THE_KEY", "404 Not Found"),
        ("nano", "sample.max_new_tokens=100000", "400 Bad Request"),
    ):
        more = (more,) if "key_env" in more else (more, "endpoint.key_env=THE_KEY")
        command = ("eval", model, "--engine", "openai", at, *more, "--n", "1", "--out", tmp_path / said[:3])
        code, _, told = ramify(monkeypatch, capsys, *command)
        assert code != 0
        assert said in told
        assert "Traceback" not in told and KEY not in told and "not-that-one" not in told
