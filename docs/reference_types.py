"""Types in words, and text as Markdown: what the pages of the reference are written with."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterable, Iterator, Sequence
from enum import Enum
from itertools import groupby
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel

WORDS = {int: "integer", float: "number", str: "text", bool: "true, false", Path: "path", Any: "anything"}
WORDS[NoneType] = "null"
BOUNDS = {"gt": ">", "ge": "≥", "lt": "<", "le": "≤", "min_length": "length ≥"}


def kind_of(annotation: Any) -> str:
    """A type in words: `integer > 0 or null`."""
    origin, inner = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return with_bounds(kind_of(inner[0]), [each for more in inner[1:] for each in getattr(more, "metadata", ())])
    if origin in (Union, UnionType):
        return " or ".join(dict.fromkeys(kind_of(each) for each in inner))
    if origin is Literal:
        return ", ".join(f"`{each}`" for each in inner)
    if origin in (tuple, list):
        return f"list of {kind_of(inner[0])}"
    if origin is dict:
        return f"mapping of {kind_of(inner[0])} to {kind_of(inner[1])}"
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return "section"
    if isinstance(annotation, type) and issubclass(annotation, Enum):
        return ", ".join(f"`{each.value}`" for each in annotation)
    return WORDS[annotation]


def with_bounds(kind: str, metadata: Iterable[Any]) -> str:
    """A type with what its values are held to."""
    named = [(sign, getattr(each, name, None)) for each in metadata for name, sign in BOUNDS.items()]
    found = [f"{sign} {bound:g}" for sign, bound in named if bound is not None]
    return f"{kind} {', '.join(found)}" if found else kind


def section_in(annotation: Any) -> type[BaseModel] | None:
    """The section that a type holds, if it holds one."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next((found for each in get_args(annotation) if (found := section_in(each)) is not None), None)


def table(titles: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Rows of cells as a table."""
    lines = ["| " + " | ".join(titles) + " |", "|" + "---|" * len(titles)]
    return "\n".join([*lines, *("| " + " | ".join(row) + " |" for row in rows)])


def cell(text: str) -> str:
    """Text for one cell of a table."""
    return " ".join(text_of(text).split()).replace("|", r"\|")


def text_of(text: str) -> str:
    """A docstring as Markdown: signs that would be markup are escaped, but not in `code`."""
    parts = re.split(r"(`[^`]*`)", text)
    return "".join(part if part.startswith("`") else re.sub(r"([<*_])", r"\\\1", part) for part in parts)


def blocks(doc: str) -> Iterator[str]:
    """A docstring as Markdown: paragraphs that are indented or in columns stand as they are."""
    for literal, together in groupby(
        re.split(r"\n{2,}", doc), lambda each: bool(re.search(r"^ {2,}|^>>>|\S {2,}\S", each, re.M))
    ):
        paragraphs = "\n\n".join(together)
        yield f"```text\n{textwrap.dedent(paragraphs)}\n```" if literal else text_of(paragraphs)
