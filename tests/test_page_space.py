"""The page as a Space: its files fit together, and visitors may open listed models only."""

from __future__ import annotations

import os
import runpy
import signal
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import httpx
import pytest
import yaml
from page_setup import free_port, until

CHAT = Path(__file__).resolve().parent.parent / "recipes" / "chat"


def test_the_files_of_the_space_fit_together() -> None:
    pytest.importorskip("gradio", reason="pip install 'ramify[chat]'")
    _, front, text = (CHAT / "space" / "README.md").read_text(encoding="utf-8").split("---\n", 2)
    told = yaml.safe_load(front)
    assert told["sdk"] == "gradio" and told["app_file"] == "app.py" and (CHAT / told["app_file"]).is_file()
    assert version("gradio").split(".")[0] == told["sdk_version"].split(".")[0]
    assert (CHAT / "space" / "requirements.txt").read_text(encoding="utf-8").split() == ["ramify[chat]"]
    settings = runpy.run_path(str(CHAT / "app.py"))
    assert settings["N_CTX"] == 2048 and str(settings["N_CTX"]) in text
    for name in settings["MODELS"].split(";"):
        repository, part = name.split(",")
        assert repository.strip() in told["models"] and part.strip() in ("Q4", "Q8")


@pytest.mark.proof
def test_the_app_shows_listed_models_only(tmp_path: Path) -> None:
    pytest.importorskip("gradio", reason="pip install 'ramify[chat]'")
    port = free_port()
    told = {"SPACE_ID": "somebody/space", "MODELS": "nano; other, Q4", "GRADIO_SERVER_PORT": str(port)}
    process = subprocess.Popen([sys.executable, CHAT / "app.py"], cwd=tmp_path, env={**os.environ, **told})
    try:

        def config() -> dict[str, object] | None:
            assert process.poll() is None
            try:
                return httpx.get(f"http://127.0.0.1:{port}/config").json()
            except httpx.TransportError:
                return None

        parts = until(config, "the page")["components"]
        model = next(each["props"] for each in parts if each["props"].get("elem_id") == "chat-model")
        assert model["choices"] == [["nano", "nano"], ["other, Q4", "other, Q4"]] and not model["allow_custom_value"]
    finally:
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 0
