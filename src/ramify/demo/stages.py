"""The four stages of the demonstration: names, what they do, and settings (the YAML files beside this module)."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from ramify.base.config import RunConfig
from ramify.base.config_file import load_config

_HERE = Path(__file__).parent


@dataclass(frozen=True, slots=True)
class DemoStage:
    """One stage.

    Attributes:
        key: its name in results.json and its folder.
        name: its name in tables.
        about: what happens in it, in one or two sentences.
        config: its settings; `out` is its folder.
        trains: whether it trains before it is measured.
    """

    key: str
    name: str
    about: str
    config: RunConfig
    trains: bool

    @property
    def folder(self) -> Path:
        """Where its run is."""
        assert self.config.out is not None
        return self.config.out

    @property
    def evaluation(self) -> Path:
        """Where its evaluation is."""
        return self.folder / "eval" if self.trains else self.folder


_TOLD = {
    "base": ("base", "The base model is asked as it is. It knows the material as text, and answers in any style."),
    "cot": (
        "few-shot chain of thought",
        "Four worked conversions are put before every question. Nothing is trained; the worked turns, the same for all "
        "questions, are computed once.",
    ),
    "sft": (
        "SFT",
        "Supervised fine-tuning: an adapter learns from questions and their gold answers to answer directly.",
    ),
    "rft": (
        "RFT",
        "Rejection sampling: the few-shot model works out the training questions several times, the grader keeps the "
        "chains that end in the gold answer, and an adapter learns to write such chains without being shown any.",
    ),
}


def demo_stages(out: Path, quick: bool = False, n: int | None = None) -> list[DemoStage]:
    """The stages in order, to be run in subfolders of `out`.

    Args:
        quick: few questions and steps.
        n: held-out questions; None: as the settings say.
    """
    made = []
    for key, (name, about) in _TOLD.items():
        overrides = [*(_quick(key) if quick else ()), *([] if n is None else [f"evaluate.limit={n}"])]
        config = load_config(_HERE / f"{key}.yaml", [*overrides, f"out={out / key}"])
        made.append(DemoStage(key, name, about, config, trains=config.data.train is not None))
    return made


def _quick(key: str) -> list[str]:
    """What quick.yaml changes in a stage, as overrides."""
    values: dict[str, dict[str, Any]] = yaml.safe_load((_HERE / "quick.yaml").read_text(encoding="utf-8"))
    changed = {**values["all"], **values.get(key, {})}
    return [f"{name}={value}" for name, value in changed.items()]
