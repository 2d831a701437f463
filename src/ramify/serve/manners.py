"""How a model is spoken to: as the run it comes from was trained, also when it was exported since."""

from __future__ import annotations

import json
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from ramify.base.config import Prompting, RunConfig, Sampling
from ramify.base.errors import ModelError
from ramify.base.runs import EXPORT, is_run
from ramify.evaluate.settings import evaluation_config
from ramify.sample.llamacpp.choices import export_of, is_export
from ramify.serve.voice import CHAT

__all__ = ["CHAT", "Manners", "manners_of"]


@dataclass(frozen=True, slots=True)
class Manners:
    """What belongs to a model besides its weights.

    Attributes:
        prompting: chat template, system turn, worked turns.
        settings: how answers are drawn: a run's own length and stop strings.
        quantize: how the frozen weights were held in training, when it was not as they are.
    """

    prompting: Prompting = field(default_factory=Prompting)
    settings: Sampling = CHAT
    quantize: str | None = None

    def but(self, **prompting: str | None) -> Manners:
        """The same with these settings of the prompt; None leaves one as it is."""
        asked = {name: value for name, value in prompting.items() if value is not None}
        return replace(self, prompting=self.prompting.model_copy(update=asked))


def manners_of(name: str, adapter: str | None = None) -> Manners:
    """Those of a run (an adapter's go before the model's), of the run an export was made of, or the plain ones.

    Raises:
        ModelError: the record of the export cannot be read.
    """
    trained = adapter if adapter is not None and is_run(adapter) else name
    if is_run(trained):
        return _of_run(trained)
    folder = export_of(name)[0]
    if folder is None and Path(name).exists():  # its merged folder, or a file in it; `nano` is in no folder
        folder = Path(name).parent
    return Manners() if folder is None or not is_export(folder) else _of_export(folder)


def _drawing(sample: dict[str, Any]) -> dict[str, Any]:
    """What of a run's drawing holds in a chat too."""
    read = Sampling.model_validate(sample)
    return {"max_new_tokens": read.max_new_tokens, "stop": read.stop} if sample else {}


def _of_run(folder: str) -> Manners:
    config: RunConfig = evaluation_config(folder)
    drawn = {"max_new_tokens": config.sample.max_new_tokens, "stop": config.sample.stop}
    return Manners(config.prompt, CHAT.model_copy(update=drawn), config.train.quantize)


def _of_export(folder: Path) -> Manners:
    """What was trained is in the files by now; only the run's prompting and drawing are taken."""
    path = folder / EXPORT
    try:
        record: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        prompting = Prompting.model_validate(record["prompt"])
        settings = CHAT.model_copy(update=_drawing(record.get("sample") or {}))
    except (OSError, ValueError, KeyError, TypeError, ValidationError) as error:
        raise ModelError(f"{path}: cannot be read: {error!r}", hint="export it again") from None
    if prompting.chat_template != "plain":  # it is in the exported tokenizer; a file it came from may be gone
        prompting = prompting.model_copy(update={"chat_template": "model"})
    return Manners(prompting, settings)
