"""The recipe of prompt erasure: its page typed as it stands, and what the four figures have to show."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from test_docs import ROOT, run, typed

PAGE = ROOT / "docs" / "erasure.md"


@pytest.mark.proof
def test_the_erased_prompt_has_moved_into_the_weights(tmp_path: Path) -> None:
    """On held-out questions the tuned model does without the prompt what the start model does with it alone."""
    shutil.copytree(ROOT / "recipes", tmp_path / "recipes", ignore=shutil.ignore_patterns("__pycache__"))
    for command in typed(PAGE):
        run(command, tmp_path)
    found = json.loads((tmp_path / "runs" / "erased" / "erasure" / "erasure.json").read_text(encoding="utf-8"))
    worth, gained, against, _ = (each["paired"] for each in found["differences"].values())
    assert worth["n"] >= 300
    assert worth["low"] > 0 and gained["low"] > 0
    assert against["low"] > -0.02
    assert found["accuracy"]["start-without"]["high"] < found["accuracy"]["tuned-without"]["low"]
