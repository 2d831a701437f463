"""rubrics.json: a list of {"title", "description", "Ratings": [{"title", "description"}, …]}, ratings best first."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from ramify.data.labs.files import clashing
from ramify.data.labs.records import Criterion, Rating, Reason, UnusableError

FILE = "rubrics.json"


def read_rubric(text: str) -> tuple[Criterion, ...]:
    """The criteria of a rubric, white space within titles and descriptions made single.

    Raises:
        UnusableError: not JSON, not a list of criteria, a title is missing, or two titles are the same.
    """
    try:
        given = json.loads(text)
        text.encode(), json.dumps(given, ensure_ascii=False).encode()  # half of a surrogate pair fits no file
    except (ValueError, RecursionError) as error:
        at = f" in line {error.lineno}" if isinstance(error, json.JSONDecodeError) else ""
        raise _unusable(f"not valid JSON{at}") from None
    if not isinstance(given, list) or not given:
        raise _unusable("a list of criteria is needed")
    criteria = tuple(_criterion(each, number) for number, each in enumerate(given, start=1))
    _refuse_equal([each.title for each in criteria], "criteria")
    return criteria


def _criterion(given: Any, number: int) -> Criterion:
    where = f"criterion {number}"
    title, description = _titled(given, where)
    ratings = given.get("Ratings", given.get("ratings"))
    if not isinstance(ratings, list):
        raise _unusable(f"{where}: a list of Ratings is needed")
    found = tuple(Rating(*_titled(each, f"{where}, rating {index}")) for index, each in enumerate(ratings, start=1))
    _refuse_equal([each.title for each in found], f"ratings of {where}")
    return Criterion(title, description, found)


def _titled(given: Any, where: str) -> tuple[str, str]:
    """Title and description; a title may be a number, a description may be missing."""
    if not isinstance(given, dict):
        raise _unusable(f"{where}: an object is needed, found {type(given).__name__}")
    title, description = given.get("title"), given.get("description")
    title = str(title) if isinstance(title, int) and not isinstance(title, bool) else title
    if not isinstance(title, str) or not title.strip():
        raise _unusable(f"{where}: a title is needed")
    if not isinstance(description, str | None):
        raise _unusable(f"{where}: a description is a text")
    return " ".join(title.split()), " ".join((description or "").split())


def _refuse_equal(titles: Sequence[str], what: str) -> None:
    equal = [title for title in titles if title in clashing(titles)]
    if equal:
        raise _unusable(f"{what} with the same title {equal[0]!r}")


def _unusable(detail: str) -> UnusableError:
    return UnusableError(Reason.RUBRIC, detail, FILE)
