"""The words of a grading prompt and of its answers. What is shared stands first: statement, then code, then criterion.

Context:
<statement>

Code:
<code>

Task:
Judge the code by one criterion. <title>: <description>

Options:
A. <description>
B. <description>

Response:
One option, copied as it stands above, as JSON and nothing else: {"answer": "<option>"}
"""

from __future__ import annotations

import json

from ramify.data.labs.records import Criterion, Rating

Prompt = str | list[dict[str, str]]
LONGEST_TITLE = 60
"""Characters that stand before an option's first full stop: its letter, or a short name."""


def shared(statement: str, code: str) -> str:
    """The part of a prompt that all criteria of one student share; it starts with what all students of a lab share."""
    return f"Context:\n{statement}\n\nCode:\n{code}\n\n"


def question(criterion: Criterion) -> str:
    """The part of a prompt that belongs to one criterion."""
    options = "\n".join(map(option, criterion.ratings))
    asked = f"{criterion.title}: {criterion.description}" if criterion.description else criterion.title
    return (
        f"Task:\nJudge the code by one criterion. {asked}\n\nOptions:\n{options}\n\n"
        'Response:\nOne option, copied as it stands above, as JSON and nothing else: {"answer": "<option>"}'
    )


def prompt(text: str, system: str | None) -> Prompt:
    """A text alone, or with a system turn before it."""
    if system is None:
        return text
    return [{"role": "system", "content": system}, {"role": "user", "content": text}]


def option(rating: Rating) -> str:
    """`A. description`."""
    return f"{rating.title}. {rating.description}".rstrip()


def answer(rating: Rating) -> str:
    """`{"answer": "A. description"}`, the whole completion."""
    return json.dumps({"answer": option(rating)}, ensure_ascii=False)
