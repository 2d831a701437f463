"""`ramify data`: look at rows before they are trained on."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ramify.cli.train import Arguments

if TYPE_CHECKING:
    from ramify.base.config import RunConfig

app = typer.Typer(help="Look at data: what is in a file, and which tokens are trained.")


@app.command("show")
def show(
    arguments: Arguments = None,
    n: Annotated[int, typer.Option("--n", min=1, help="Rows to show.")] = 3,
) -> None:
    """Show rows as the model sees them, the trained tokens in green: `ramify data show train.json model=nano`."""
    from ramify.console import output
    from ramify.model.load import load_without_weights
    from ramify.prompts.renderer import Renderer
    from ramify.prompts.show import coloured
    from ramify.prompts.templates import extend_tokenizer, find_template
    from ramify.train.rows import read_examples

    config = _config(arguments or [])
    tokenizer, _ = load_without_weights(config.model, adapter=config.adapter, revision=config.revision)
    tokenizer, _ = extend_tokenizer(tokenizer, find_template(config.prompt.chat_template, tokenizer))
    renderer = Renderer(tokenizer, config.prompt)
    terminal = output()
    for example in read_examples(config, "train")[:n]:
        terminal.print(f"── {example.source or 'row'}", style="dim", markup=False)
        for sequence in renderer.sequences(example):
            terminal.print(coloured(tokenizer, sequence), soft_wrap=True)
            trained = sum(weight != 0 for weight in sequence.weights)
            terminal.print(f"{trained} of {len(sequence.ids)} tokens trained", style="dim", markup=False)


@app.command("check")
def check(
    arguments: Arguments = None,
) -> None:
    """Count rows, find rows that cannot be used, repeated questions, and questions that leak into validation.

    For example: ramify data check train.json data.valid=valid.json
    """
    from ramify.console import output, table
    from ramify.data.sources import read_rows
    from ramify.train.rows import leaks, read_examples, rows_file

    config = _config(arguments or [])
    lines: list[tuple[str, Any]] = []
    for split in ("train", "valid"):
        source = getattr(config.data, split)
        if source is not None and str(source) != "task":
            rows = read_rows(rows_file(source))
            lines += [
                (f"{split}: rows of the shape {rows.shape}", rows.count),
                (f"{split}: problems", len(rows.problems)),
            ]
            lines += [(f"{split}: {name.replace('_', ' ')}", count) for name, count in rows.notes.items()]
    train = read_examples(config, "train")
    lines.append(("train: examples", len(train)))
    if config.data.valid is not None:
        valid = read_examples(config, "valid")
        lines += [
            ("valid: examples", len(valid)),
            ("valid: questions that also occur in train", len(leaks(train, valid))),
        ]
    output().print(table("", ("", "count"), lines))


def _config(arguments: Sequence[str]) -> RunConfig:
    """As for `train`, but a file of rows may stand where the YAML file stands.

    Raises:
        ConfigError: as for `train`, or there are two files of rows.
    """
    from ramify.base.errors import ConfigError
    from ramify.cli.settings import config_from, is_override

    files = [each for each in arguments if not is_override(each)]
    rows = [each for each in files if Path(each).suffix.lower() in (".json", ".jsonl", ".ndjson")]
    others = [each for each in arguments if each not in rows]
    named = [*rows, *(each for each in others if rows and each.startswith("data.train="))]
    if len(named) > 1:
        raise ConfigError(
            f"one file of training rows is allowed, found {' '.join(named)}", hint="validation rows are data.valid=FILE"
        )
    return config_from([*others, *(f"data.train={json.dumps(each, ensure_ascii=False)}" for each in rows)])
