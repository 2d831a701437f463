"""One command line, given to TRL's own script and to `ramify train`."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from ramify.base.runs import Run
from ramify.cli.main import main

Metrics = Sequence[Mapping[str, Any]]


def both_train(
    line: Sequence[str],
    script: Callable[..., None],
    kind: type,
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    own: Sequence[str] = (),
) -> tuple[Metrics, Metrics]:
    """What a step logged here, and what it logged there.

    Args:
        script: TRL's, which takes what its parser makes of the line with arguments of this `kind`.
        own: more words for `ramify train`.
    """
    from trl import ModelConfig, ScriptArguments, TrlParser
    from trl.scripts.utils import DatasetMixtureConfig

    monkeypatch.setenv("HF_DATASETS_CACHE", str(folder / "cache"))
    parser = TrlParser((ScriptArguments, kind, ModelConfig, DatasetMixtureConfig))
    script(*parser.parse_args_and_config([*line, "--output_dir", str(folder / "theirs")]))
    state = next((folder / "theirs").glob("checkpoint-*/trainer_state.json"))
    theirs = [each for each in json.loads(state.read_text())["log_history"] if "loss" in each]

    trainer = script.__module__.rpartition(".")[2]
    words = ["ramify", "train", trainer, *line, *own, "--output_dir", str(folder / "ours")]
    monkeypatch.setattr(sys, "argv", words)
    with pytest.raises(SystemExit) as ended:
        main()
    assert not ended.value.code
    return Run(folder / "ours").metrics("train"), theirs


def assert_same_steps(ours: Metrics, theirs: Metrics, steps: int) -> None:
    """Losses, norms and rates of so many steps."""
    assert len(ours) == len(theirs) == steps
    for one, other in zip(ours, theirs, strict=True):
        assert one["loss"] == pytest.approx(other["loss"], rel=1e-4)
        assert one["grad_norm"] == pytest.approx(other["grad_norm"], rel=1e-3)
        assert one["lr"] == pytest.approx(other["learning_rate"])
