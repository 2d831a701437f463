"""`ramify data`: look at rows before they are trained on."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ramify.cli.labs import labs
from ramify.cli.train import Arguments

if TYPE_CHECKING:
    from ramify.base.config import RunConfig
    from ramify.base.types import Example
    from ramify.data.sources import Rows

app = typer.Typer(help="Look at data: what is in a file, and which tokens are trained.")
app.command("labs")(labs)


@app.command("show")
def show(
    arguments: Arguments = None,
    n: Annotated[int, typer.Option("--n", min=1, help="Rows to show.")] = 3,
) -> None:
    """Show rows as the model sees them, the trained tokens in green: `ramify data show train.json model=nano`.

    Of preference pairs both sides are shown.
    """
    from ramify.console import output
    from ramify.model.load import load_without_weights
    from ramify.prompts.renderer import Renderer
    from ramify.prompts.show import coloured
    from ramify.prompts.templates import extend_tokenizer, find_template

    config = _config(arguments or [])
    tokenizer, _ = load_without_weights(config.model, adapter=config.adapter, revision=config.revision)
    tokenizer, _ = extend_tokenizer(tokenizer, find_template(config.prompt.chat_template, tokenizer))
    renderer = Renderer(tokenizer, config.prompt)
    terminal = output()
    for example, sides in _shown(config)[:n]:
        terminal.print(f"── {example.source or 'row'}", style="dim", markup=False)
        for sequence, side in zip(renderer.sequences(example), sides, strict=True):
            terminal.print(coloured(tokenizer, sequence), soft_wrap=True)
            trained = sum(weight != 0 for weight in sequence.weights)
            terminal.print(f"{side}{trained} of {len(sequence.ids)} tokens trained", style="dim", markup=False)


def _shown(config: RunConfig) -> list[tuple[Example, tuple[str, ...]]]:
    """Training rows, and what their completions are called: the sides of a pair have names."""
    from ramify.base.types import Completion, Example
    from ramify.data.sources import read_rows
    from ramify.train.pairs import read_preferences
    from ramify.train.rows import read_examples, rows_file

    source = config.data.train
    own = source is None or str(source) == "task"
    if config.method != "dpo" and (own or not read_rows(rows_file(str(source))).preferences):
        return [(each, ("",) * len(each.completions)) for each in read_examples(config, "train")]
    sides = ("chosen: ", "rejected: ")
    return [
        (Example(pair.prompt, (Completion(pair.chosen), Completion(pair.rejected)), pair.source), sides)
        for pair in read_preferences(config, "train")
    ]


@app.command("check")
def check(
    arguments: Arguments = None,
) -> None:
    """Count rows, find rows that cannot be used, repeated questions, and questions that leak into validation.

    For example: ramify data check train.json data.valid=valid.json

    Of preference pairs: equal and empty sides, repetitions, end tokens as text, and whether length alone tells which
    answer is the chosen one. With model=NAME lengths are in its tokens, and it says how much the pairs share:
    ramify data check pairs.jsonl model=nano
    """
    from ramify.console import output, table
    from ramify.data.sources import read_rows
    from ramify.train.rows import rows_file

    config = _config(arguments or [])
    sources = {split: getattr(config.data, split) for split in ("train", "valid")}
    files = {name: read_rows(rows_file(each)) for name, each in sources.items() if each and str(each) != "task"}
    lines: list[tuple[str, Any]] = []
    for split, rows in files.items():
        lines.append((f"{split}: rows of the shape {rows.shape}", rows.count))
    are_pairs = any(rows.preferences for rows in files.values())
    lines += _pair_lines(config) if are_pairs else _example_lines(config, files)
    output().print(table("", ("", "count"), lines))


def _pair_lines(config: RunConfig) -> list[tuple[str, Any]]:
    from ramify.cli.lint import Measure, leaked_prompts, pair_lines
    from ramify.train.pairs import read_preferences

    measure = Measure.of(config)
    train = read_preferences(config, "train")
    lines = pair_lines(config, "train", train, measure)
    if config.data.valid is not None:
        valid = read_preferences(config, "valid")
        lines += pair_lines(config, "valid", valid, measure)
        lines.append(("valid: pairs whose prompt also occurs in train", leaked_prompts(train, valid)))
    return lines


def _example_lines(config: RunConfig, files: Mapping[str, Rows]) -> list[tuple[str, Any]]:
    from ramify.train.rows import leaks, read_examples

    lines: list[tuple[str, Any]] = []
    for split, rows in files.items():
        lines.append((f"{split}: problems", len(rows.problems)))
        lines += [(f"{split}: {name.replace('_', ' ')}", count) for name, count in rows.notes.items()]
    train = read_examples(config, "train")
    lines.append(("train: examples", len(train)))
    if config.data.valid is not None:
        valid = read_examples(config, "valid")
        lines += [
            ("valid: examples", len(valid)),
            ("valid: questions that also occur in train", len(leaks(train, valid))),
        ]
    return lines


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
