"""Completions of many prompts, written as they finish, so that a stopped run loses nothing."""

from __future__ import annotations

import json
import os
import sys
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ramify.base.config import RunConfig
from ramify.base.errors import ConfigError, DataError, RunError
from ramify.base.records import append_jsonl, json_line, read_jsonl, to_plain, write_jsonl
from ramify.base.types import Conversation, Message, Problem, Sample
from ramify.data.sources import read_rows

if TYPE_CHECKING:
    from ramify.sample.engines import OpenedEngine

_HEAD = b'{"id": '  # how every row begins


def read_prompts(source: str) -> list[Problem]:
    """Prompts of a file, or of standard input (`-`): text files hold one a line, JSON files rows of any known shape.

    Raises:
        DataError: there are none, or the file cannot be used.
    """
    if source == "-":
        return _lines(_standard_input(), "standard input")
    path = Path(source)
    if path.suffix.lower() in (".json", ".jsonl", ".ndjson"):
        rows = read_rows(path)
        rows.refuse_mixed()
        asked = [example for example in rows.examples if example.prompt]
        if len(asked) < len(rows.examples):
            raise DataError(f"{len(rows.examples) - len(asked)} of its rows are texts without a prompt", path=path)
        return list(rows.problems) or [
            Problem(f"{i}", example.prompt, source=example.source) for i, example in enumerate(asked)
        ]
    try:
        return _lines(path.read_text(encoding="utf-8-sig"), source)
    except FileNotFoundError:
        raise DataError("no such file", path=path, hint="a file of prompts, or - for standard input") from None
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"cannot be read: {error}", path=path) from None


def complete(
    config: RunConfig, engine: OpenedEngine, problems: Sequence[Problem], on_sample: Callable[[Sample], None]
) -> list[list[Sample]]:
    """Draw `config.sample.n` completions of each problem's prompt.

    Raises:
        LengthError: a prompt leaves no room for the new tokens.
    """
    from ramify.sample.prompting import prompt_of

    prompts = [prompt_of(engine.asker, problem) for problem in problems]
    return engine.sampler.sample(prompts, config.sample, seed=config.seed, on_sample=on_sample)


def check_destination(path: Path, prompts: str, *, resume: bool, overwrite: bool) -> None:
    """Refuse a file whose content would be lost without having been asked for, before anything is read or loaded.

    Args:
        path: where completions are to go.
        prompts: the file the prompts come from, or `-`.

    Raises:
        ConfigError: it is the file of the prompts, or neither a file nor new.
        RunError: it exists, and neither resume nor overwrite was asked.
    """
    if not os.path.lexists(path):
        return
    if prompts != "-" and os.path.exists(prompts) and os.path.exists(path) and os.path.samefile(path, prompts):
        raise ConfigError(f"--out {path} is the file of the prompts", hint="give another file with --out")
    if not os.path.isfile(path):
        raise ConfigError(f"--out {path} exists and is not a file", hint="give the name of a file")
    if not (resume or overwrite):
        raise RunError(f"{path}: exists already", hint="--resume keeps its finished rows, --overwrite replaces it")


class Destination:
    """Where completions go: a file of JSON lines, or standard output, one row a prompt in the prompts' order.

    Nothing is written before `begin`. Rows are appended to the file as prompts finish; `close` puts them in order.

    Args:
        path: the file, or None for standard output.
        problems: all prompts.
        n: completions of each.

    Attributes:
        stale: rows of the file that `keep` left out, because they do not answer one of these prompts n times.
    """

    def __init__(self, path: Path | None, problems: Sequence[Problem], n: int) -> None:
        self._path, self._n = path, n
        self._problems = {problem.id: problem for problem in problems}
        self._rows: dict[str, dict[str, Any]] = {}
        self._unfinished: dict[str, list[Sample]] = defaultdict(list)
        self.stale = 0

    def keep(self) -> None:
        """Take over the finished rows of the file, when there is one; it stays as it is.

        Raises:
            DataError: a row cannot be read, or is none that `ramify generate` wrote.
        """
        if self._path is None or not self._path.is_file():
            return
        for line, row in _written(self._path):
            if not _is_own(row):
                hint = "--overwrite replaces the file"
                raise DataError("not a row that `ramify generate` wrote", path=self._path, line=line, hint=hint)
            problem = self._problems.get(row["id"])
            if problem is not None and row["prompt"] == _prompt(problem.prompt) and _count(row) == self._n:
                self._rows[problem.id] = row
            else:
                self.stale += 1

    @property
    def waiting(self) -> list[Problem]:
        """The prompts that still need completions."""
        return [problem for name, problem in self._problems.items() if name not in self._rows]

    def begin(self) -> None:
        """Write the file with the rows that are kept, now that everything else has been checked.

        Raises:
            RunError: it cannot be written.
        """
        if self._path is not None:
            write_jsonl(self._path, self._rows.values())

    def add(self, sample: Sample) -> None:
        """Take a finished sample; the row is written when it is the prompt's last."""
        found = self._unfinished[sample.problem_id]
        found.append(sample)
        if len(found) == self._n:
            row = _row(self._problems[sample.problem_id], sorted(found, key=lambda each: each.index))
            self._rows[sample.problem_id] = row
            if self._path is not None:
                append_jsonl(self._path, row)

    def close(self) -> None:
        """Write all rows in the order of the prompts."""
        rows = [self._rows[name] for name in self._problems if name in self._rows]
        if self._path is None:
            sys.stdout.write("".join(json_line(row) for row in rows))
        else:
            write_jsonl(self._path, rows)


def _written(path: Path) -> Iterator[tuple[int, Any]]:
    """(line, row) of a file of completions, without a last row that was cut off in writing."""
    content = path.read_bytes()
    last = content[content.rfind(b"\n") + 1 :]
    torn = content.count(b"\n") + 1 if last and last[: len(_HEAD)] == _HEAD[: len(last)] else None
    try:
        yield from read_jsonl(path)
    except DataError as error:
        if torn is None or error.line != torn:
            raise


def _is_own(row: Any) -> bool:
    """Whether it has the form of `_row`."""
    if not isinstance(row, dict) or not isinstance(row.get("id"), str) or "prompt" not in row:
        return False
    return isinstance(row.get("completion"), str) or isinstance(row.get("completions"), list)


def _count(row: dict[str, Any]) -> int:
    return len(row["completions"]) if "completions" in row else 1


def _row(problem: Problem, samples: Sequence[Sample]) -> dict[str, Any]:
    """One row in a shape that training reads; `stop` says how each completion ended."""
    texts, stops = [sample.text for sample in samples], [sample.stop.value for sample in samples]
    head = {"id": problem.id, "prompt": _prompt(problem.prompt)}
    if len(samples) == 1:
        return {**head, "completion": texts[0], "stop": stops[0]}
    return {**head, "completions": texts, "stop": stops}


def _prompt(prompt: Conversation) -> Any:
    return prompt[0].content if len(prompt) == 1 and prompt[0].role == "user" else to_plain(prompt)


def _standard_input() -> str:
    try:
        return sys.stdin.read().removeprefix("\ufeff")
    except UnicodeDecodeError as error:
        hint = "save the prompts as UTF-8"
        raise DataError(f"standard input: not valid UTF-8 at byte {error.start}", hint=hint) from None


def _lines(text: str, source: str) -> list[Problem]:
    lines = [line.strip() for line in text.splitlines()]
    first = next((line for line in lines if line), None)
    if first is None:
        raise DataError(f"{source}: there are no prompts", hint="one prompt a line")
    if _is_json_row(first):
        raise DataError(
            f"{source}: holds JSON rows, one prompt a line is needed", hint="give JSON rows as a .jsonl file"
        )
    return [
        Problem(f"{number}", (Message("user", line),), source=f"{source}:{number}")
        for number, line in enumerate(lines, start=1)
        if line
    ]


def _is_json_row(line: str) -> bool:
    try:
        return isinstance(json.loads(line), dict | list)
    except ValueError:
        return False
