"""The model card of an export: what it was made of, trained on, measured at, and how to use it; all from records."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from pydantic import TypeAdapter, ValidationError

from ramify.base.errors import RunError
from ramify.base.runs import Run, is_run
from ramify.export.parity import ParityRow

_SHOWN = ("method", "seed", "lora", "train", "data")


def card(record: Mapping[str, Any], rows: Sequence[ParityRow]) -> str:
    """The text of README.md.

    Args:
        record: the content of export.json.
        rows: the parity table; empty when it was not measured.
    """
    source = str(record["source"])
    run = Run(Path(source)) if is_run(source) else None
    parts = [
        _front_matter(record),
        f"# {record['name']}",
        _origin(record, run),
        *_training(run),
        *_evaluations(run),
        "## Parity",
        parity_table(rows) if rows else _unmeasured(record),
        "## Files",
        _files(record["files"]),
        "## Use",
        _usage(record),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _front_matter(record: Mapping[str, Any]) -> str:
    formats = {Path(each["path"]).suffix for each in record["files"]}
    library = "transformers" if ".safetensors" in formats else "gguf"
    values: dict[str, Any] = {"library_name": library, "pipeline_tag": "text-generation", "tags": ["ramify"]}
    if ".gguf" in formats and library != "gguf":
        values["tags"].append("gguf")
    if "/" in str(record["base"]) and not Path(str(record["base"])).exists():
        values["base_model"] = record["base"]
    return f"---\n{yaml.safe_dump(values, sort_keys=False)}---"


def _origin(record: Mapping[str, Any], run: Run | None) -> str:
    what = f"The run `{record['source']}`" if run is not None else f"`{record['source']}`"
    adapter = ""
    if record.get("adapter"):
        adapter = ": the adapter alone" if record.get("adapter_only") else " with its adapter merged in"
    status = {
        "passed": "Every file below was read back and agrees with the model that was trained.",
        "failed": "**A file below does not agree with the model that was trained: see Parity. Do not use it.**",
        "unverified": "The files below were not read back.",
    }[str(record["status"])]
    return f"{what}, made from `{record['base']}`{adapter}. {status}"


def _training(run: Run | None) -> list[str]:
    if run is None:
        return []
    found = run.record
    config = found.get("config") or {}
    settings = {name: config[name] for name in _SHOWN if config.get(name) not in (None, {}, [])}
    data, hashes = found.get("data") or {}, found.get("hashes") or {}
    facts = [
        ("rows", data.get("rows")),
        ("optimizer steps", found.get("steps")),
        ("seconds", found.get("training_seconds")),
    ]
    lines = [f"- {name}: {value:,}" for name, value in facts if isinstance(value, int | float)]
    lines += [f"- sha256 of {name}: `{value}`" for name, value in hashes.items()]
    shown = yaml.safe_dump(settings, sort_keys=False, allow_unicode=True)
    return ["## Training", "\n".join(lines), f"```yaml\n{shown}```"]


def _evaluations(run: Run | None) -> list[str]:
    """What was measured on the run, as its evaluation folders have it."""
    rows = []
    for path in sorted(run.folder.glob("eval*/scores.json")) if run is not None else []:
        try:
            scores = dict(json.loads(path.read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError):  # a damaged evaluation must not cost the export that is done by now
            continue
        accuracy = scores.get("accuracy")
        if isinstance(accuracy, dict):
            low, value, high = (100 * accuracy[name] for name in ("low", "value", "high"))
            rows.append(f"| {path.parent.name} | {value:.1f} % ({low:.1f} to {high:.1f}) | {scores.get('n', '')} |")
    if not rows:
        return []
    head = "| evaluation | correct (95 % interval) | problems |\n|---|---|---|\n"
    return ["## Evaluation", head + "\n".join(rows)]


def parity_table(rows: Sequence[ParityRow]) -> str:
    """The table as Markdown, with a line for each limit that was not kept."""
    head = parity_head(rows)
    lines = [f"| {' | '.join(cells)} |" for cells in (head, ["---"] * len(head), *parity_lines(rows))]
    failures = [f"- **{row.stage}**: {each}" for row in rows for each in row.failures]
    return "\n".join(lines) + ("\n\n" + "\n".join(failures) if failures else "")


def parity_rows(record: Mapping[str, Any]) -> tuple[ParityRow, ...]:
    """The parity table that export.json holds; empty when parity was not measured.

    Raises:
        RunError: it is not a table of this kind.
    """
    try:
        return TypeAdapter(tuple[ParityRow, ...]).validate_python(record.get("parity", ()))
    except ValidationError as error:
        raise RunError(f"export.json: parity cannot be read: {error.errors()[0]['msg']}") from None


def _unmeasured(record: Mapping[str, Any]) -> str:
    why = "an adapter alone cannot be tried" if record.get("adapter_only") else "`--no-verify`"
    return f"Parity was not measured ({why})."


def parity_head(rows: Sequence[ParityRow]) -> list[str]:
    """Columns of the table; scores have one where they were asked for."""
    scored = ["correct"] if any(row.score is not None for row in rows) else []
    return ["parity", "prompt ids", "KL", "same top token", "greedy tokens", "stops", "size", *scored, ""]


def parity_lines(rows: Sequence[ParityRow]) -> list[list[str]]:
    """The rows as words."""
    return [
        [*cells_of(row), *([] if row.score is None else [str(row.score)]), "ok" if row.passed else "FAILED"]
        for row in rows
    ]


def cells_of(row: ParityRow) -> list[str]:
    """A row as words: stage, prompts, divergence, likeliest token, greedy tokens, stops, size."""
    found = row.agreement
    kl, top1 = ("reference", "") if found is None else (f"{found.kl:.1e}", f"{100 * found.top1:.1f} %")
    size = f"{row.size / 1e6:,.1f} MB" if row.size else ""
    prompts = f"{row.prompts} ({row.known} known)" if row.known else str(row.prompts)
    return [row.stage, prompts, kl, top1, str(row.greedy), str(row.stops), size]


def _files(files: Sequence[Mapping[str, Any]]) -> str:
    lines = [f"| `{each['path']}` | {each['bytes']:,} | `{each['sha256']}` |" for each in files]
    return "| file | bytes | sha256 |\n|---|---|---|\n" + "\n".join(lines)


def _usage(record: Mapping[str, Any]) -> str:
    ggufs = [each["path"] for each in record["files"] if each["path"].endswith(".gguf")]
    merged = any(each["path"].startswith("merged/") for each in record["files"])
    lines = []
    if record.get("adapter_only"):
        lines.append(f"llama-cli -m BASE.gguf --lora {ggufs[-1]} --jinja")
    elif ggufs:
        lines += [f"ramify chat {ggufs[-1]}", f"llama-cli -m {ggufs[-1]} --jinja"]
    if any(each["path"] == "Modelfile" for each in record["files"]):
        lines.append(f"ollama create {record['name']} -f Modelfile")
    if merged:
        lines.append("ramify chat merged")
    return "```\n" + "\n".join(lines) + "\n```"
