"""The shell of a report: one HTML file, no script, nothing fetched, readable on a phone and on paper."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from ramify.evaluate.report.style import STYLE
from ramify.evaluate.report.visible import attribute, isolated, visible

NOTHING = "<span class='quiet'>(nothing)</span>"


def page(title: str, body: str) -> str:
    """A whole document around `body`, which is HTML already."""
    return (
        "<!doctype html>\n<html lang='en'><head><meta charset='utf-8'>"
        "<meta name='viewport' content='width=device-width,initial-scale=1'>"
        f"<title>{attribute(title)}</title><style>{STYLE}</style></head>\n<body><main>\n{body}\n</main></body></html>\n"
    )


def section(title: str, *parts: str) -> str:
    """A heading and what is under it; nothing when there is nothing under it."""
    inner = "\n".join(part for part in parts if part)
    return f"<section><h2>{visible(title)}</h2>\n{inner}\n</section>" if inner else ""


def table(columns: Sequence[str], rows: Sequence[Sequence[str]], words: Sequence[int] = ()) -> str:
    """A table of plain text; columns listed in `words` are set as text, the others as figures."""
    if not rows:
        return ""

    head = "".join(f"<th{_class(i, words)}>{visible(name)}</th>" for i, name in enumerate(columns))
    body = "".join(f"<tr>{''.join(_cells(columns, row, words))}</tr>" for row in rows)
    kind = "narrow" if len(columns) <= 3 else "wide" if len(columns) <= 7 else "wide dense"
    return (
        f"<div class='scroll'><table class='{kind}'><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>"
    )


def matrix(corner: str, columns: Sequence[str], rows: Sequence[tuple[str, Sequence[int]]]) -> str:
    """A table of counts that stays a table on a phone; cells are shaded by their share of the row, hits are framed.

    A hit is a cell whose column has the name of its row.
    """
    head = "".join(f"<th>{visible(name)}</th>" for name in (corner, *columns))
    body = "".join(f"<tr><th>{visible(name)}</th>{''.join(_shaded(name, columns, row))}</tr>" for name, row in rows)
    return (
        f"<div class='scroll'><table class='matrix'><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>"
    )


def _shaded(name: str, columns: Sequence[str], row: Sequence[int]) -> Iterator[str]:
    total = sum(row) or 1
    for column, count in zip(columns, row, strict=True):
        hit = " class='hit'" if column == name else ""
        yield f"<td{hit} style='background:rgba(42,111,151,{0.55 * count / total:.2f})'>{count}</td>"


def _cells(columns: Sequence[str], row: Sequence[str], words: Sequence[int]) -> Iterator[str]:
    """Cells that know their column's name, which a phone shows beside them."""
    for index, text in enumerate(row):
        name = f" data-name='{attribute(columns[index])}'" if columns[index] else ""
        yield f"<td{_class(index, words)}{name}>{isolated(text)}</td>"


def _class(index: int, words: Sequence[int]) -> str:
    return " class='words'" if index in words else ""


def paragraph(text: str, kind: str = "") -> str:
    """A paragraph of plain text with a class."""
    return f"<p class='{kind}'>{visible(text)}</p>" if kind else f"<p>{visible(text)}</p>"


def bullets(sentences: Sequence[str]) -> str:
    """A list of sentences; nothing when there is none."""
    return f"<ul>{''.join(f'<li>{visible(each)}</li>' for each in sentences)}</ul>" if sentences else ""


def folded(summary: str, inner: str, printed: bool = True) -> str:
    """HTML that unfolds; nothing when there is none. On paper it is unfolded, or left out when not `printed`."""
    kind = "" if printed else " class='screen'"
    return f"<details{kind}><summary>{visible(summary)}</summary>{inner}</details>" if inner else ""


def details(summary: str, text: str) -> str:
    """Plain text that unfolds; not on paper."""
    return folded(summary, said(text), printed=False)


def said(text: str) -> str:
    """What somebody said, letter by letter, in a box that it cannot leave."""
    return said_html(visible(text))


def said_html(inner: str) -> str:
    """The same of HTML."""
    return f"<div class='said' dir='auto'>{inner or NOTHING}</div>"
