"""Sources to mix, written on the spot, and mixes of them."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from tiny_tokenizers import CHATML_TOKENS, byte_level

from ramify.base.config import Prompting
from ramify.base.config_file import load_mix
from ramify.base.config_mix import MixConfig
from ramify.base.progress import SILENT, NoProgress
from ramify.data.mix.build import mix
from ramify.data.mix.folder import MixFolder
from ramify.data.mix.write import Made, Wishes
from ramify.prompts.renderer import Renderer
from ramify.prompts.templates import CHATML

PLAIN = Prompting()
LONG = "You are a teacher. Explain every step."


def chat(question: str, answer: str, system: str | None = None) -> dict[str, Any]:
    """A row of messages."""
    turns = [("user", question), ("assistant", answer)]
    if system is not None:
        turns.insert(0, ("system", system))
    return {"messages": [{"role": role, "content": text} for role, text in turns]}


def chats(name: str, count: int, system: str | None = None) -> list[dict[str, Any]]:
    """So many different rows."""
    return [chat(f"{name} asks for number {at} of many", f"It is {at * 7} for {name}.", system) for at in range(count)]


def pair(at: int) -> dict[str, Any]:
    """A preference pair."""
    return {"prompt": f"Which is better, {at}?", "chosen": f"This one, {at}.", "rejected": "None."}


def write(path: Path, rows: Iterable[Any]) -> Path:
    """A file of JSON lines."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def settings(sources: Sequence[Mapping[str, Any]], **values: Any) -> dict[str, Any]:
    """The settings of a mix as a file has them; a source's weight is 1 unless it is given."""
    return {"sources": [{"weight": 1, **source} for source in sources], "validation": 0, **values}


def config(folder: Path, sources: Sequence[Mapping[str, Any]], *overrides: str, **values: Any) -> MixConfig:
    """The settings of a mix, written to a file and read back."""
    path = folder / "mix.json"  # JSON is YAML
    path.write_text(json.dumps(settings(sources, **values)), encoding="utf-8")
    return load_mix(path, overrides)


@cache
def renderer(prompting: Prompting = PLAIN) -> Renderer:
    """ChatML with a small byte-level tokenizer."""
    return Renderer(byte_level(tokens=CHATML_TOKENS, template=CHATML), prompting)


def made(config: MixConfig, out: Path, *, watch: NoProgress = SILENT, jsonl: bool = False, **how: bool) -> Made:
    """The mix of these settings."""
    return mix(
        config, MixFolder(out, **how), renderer(), Wishes(jsonl, show=3), NoProgress() if watch is None else watch
    )


def content(folder: Path) -> dict[str, bytes]:
    """Every file of a folder."""
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def rows(folder: Path, split: str = "train") -> list[dict[str, Any]]:
    """The rows of a split, as the library reads them whose format it is."""
    from datasets import load_from_disk

    found: list[dict[str, Any]] = load_from_disk(str(folder))[split].to_list()
    return found


def question(row: Mapping[str, Any]) -> str:
    """What a row asks."""
    turns = row["messages"] if "messages" in row else row["prompt"]
    return next(str(turn["content"]) for turn in turns if turn["role"] == "user")
