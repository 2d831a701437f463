"""`ramify data`: look at rows before they are trained on."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ramify.cli.labs import labs
from ramify.cli.mix import mix
from ramify.cli.train import Arguments

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from ramify.base.config import RunConfig
    from ramify.prompts.page import Shown
    from ramify.prompts.renderer import Renderer
    from ramify.train.rows import Turns

app = typer.Typer(help="Look at data: what is in a file, and which tokens are trained.")
app.command("labs")(labs)
app.command("mix")(mix)


@app.command("show")
def show(
    arguments: Arguments = None,
    n: Annotated[int, typer.Option("--n", min=1, help="Rows to show.")] = 3,
    page: Annotated[Path | None, typer.Option("--page", help="Write them into an HTML file instead.")] = None,
) -> None:
    """Show rows as the model sees them, the trained tokens in green: `ramify data show train.json model=nano`.

    The turns of a conversation are shown as one text. Of preference pairs both sides are shown.
    """
    from ramify.base.records import write_text
    from ramify.console import output
    from ramify.model.outline import load_outline
    from ramify.prompts.page import Section, rows_page
    from ramify.train.checks import renderer_for

    config = _config(arguments or [])
    outline = load_outline(config.model, adapter=config.adapter, revision=config.revision)
    renderer = renderer_for(outline, config.prompt)
    tokenizer = renderer.tokenizer
    shown = (each for sides in islice(_rows(config), n) for each in _rendered(renderer, sides))
    if page is None:
        for each in shown:
            _print(tokenizer, each)
        return
    write_text(page, rows_page(f"Rows of {config.data.train}", tokenizer, [Section("first rows", list(shown))]))
    output().print(f"written to {page}", markup=False, soft_wrap=True)


def _rows(config: RunConfig) -> Iterator[list[tuple[str, Turns]]]:
    """Training rows, and what is shown of each: the sides of a pair have names."""
    from ramify.base.types import Completion, Example
    from ramify.data.source import training_source
    from ramify.data.sources import stream_rows
    from ramify.train.rows import Imitation, read_turns

    if str(config.data.train) == "task":
        yield from ([("", turns)] for turns in read_turns(config, "train"))
        return
    imitate = Imitation(config)
    for row in stream_rows(training_source(config.data, "train")):
        pair = row.decoded.pair
        if pair is not None:
            sides = (("chosen", pair.chosen), ("rejected", pair.rejected))
            yield [(name, (Example(pair.prompt, (Completion(text),), pair.source),)) for name, text in sides]
        elif turns := imitate(row.decoded):
            yield [("", turns)]


def _rendered(renderer: Renderer, sides: Sequence[tuple[str, Turns]]) -> Iterator[Shown]:
    from ramify.prompts.page import Shown

    for name, turns in sides:
        yield Shown(turns[0].source, name, [one for example in turns for one in renderer.sequences(example)])


def _print(tokenizer: PreTrainedTokenizerBase, shown: Shown) -> None:
    from ramify.console import output
    from ramify.prompts.show import coloured, joined

    terminal = output()
    terminal.print(f"── {shown.source or 'row'}", style="dim", markup=False)
    for sequence in joined(shown.sequences):
        terminal.print(coloured(tokenizer, sequence), soft_wrap=True)
        trained = sum(weight != 0 for weight in sequence.weights)
        side = f"{shown.name}: " if shown.name else ""
        terminal.print(f"{side}{trained} of {len(sequence.ids)} tokens trained", style="dim", markup=False)


@app.command("check")
def check(
    arguments: Arguments = None,
    near: Annotated[
        float | None,
        typer.Option("--near", min=0.0, max=1.0, help="Count rows that resemble an earlier one this much (0.8)."),
    ] = None,
) -> None:
    """Count rows, and find what is wrong with them: rows that do not fit, repetitions, leaks into validation.

    For example: ramify data check train.json data.valid=valid.json

    With model=NAME lengths are in its tokens, and it says what is too long and what a trainer that cuts would lose of
    it, and what the chat template does to the rows: ramify data check train.jsonl model=nano data.max_length=512

    Of preference pairs: equal and empty sides, repetitions, end tokens as text, whether length alone tells which answer
    is the chosen one, and with model=NAME how much the pairs share: ramify data check pairs.jsonl model=nano
    """
    from ramify.cli.check import check_lines
    from ramify.console import output, table

    config = _config(arguments or [])
    output().print(table("", ("", "count"), check_lines(config, near)))


def _config(arguments: Sequence[str]) -> RunConfig:
    """As for `train`, but a file, a folder or a hub data set of rows may stand where the YAML file stands.

    Raises:
        ConfigError: as for `train`, or there are two files of rows.
    """
    from ramify.base.errors import ConfigError
    from ramify.cli.settings import config_from, is_override

    files = [each for each in arguments if not is_override(each)]
    rows = [each for each in files if Path(each).suffix.lower() not in (".yaml", ".yml")]
    others = [each for each in arguments if each not in rows]
    named = [*rows, *(each for each in others if rows and each.startswith("data.train="))]
    if len(named) > 1:
        raise ConfigError(
            f"one file of training rows is allowed, found {' '.join(named)}", hint="validation rows are data.valid=FILE"
        )
    return config_from([*others, *(f"data.train={json.dumps(each, ensure_ascii=False)}" for each in rows)])
