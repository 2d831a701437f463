"""The shell of a report: one HTML file, no script, nothing fetched, readable on a phone and on paper."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from html import escape

_STYLE = """
:root{color-scheme:light;--ink:#1c2430;--soft:#5b6675;--line:#e3e7ec;--paper:#fff;--shade:#f6f7f9;
--main:#2a6f97;--pale:#bcd4e2;--good:#1b7a43;--bad:#b3381f}
*{box-sizing:border-box}
body{margin:0;background:var(--paper);color:var(--ink);font:16px/1.55 system-ui,-apple-system,"Segoe UI",Roboto,
"Noto Sans","Liberation Sans",sans-serif;-webkit-text-size-adjust:100%}
main{max-width:62rem;margin:0 auto;padding:2rem 1.1rem 4rem}
h1{font-size:1.75rem;line-height:1.2;margin:.1rem 0 1rem;letter-spacing:-.01em}
h2{font-size:1.15rem;margin:2.6rem 0 .7rem}
h3{font-size:1rem;margin:1.5rem 0 .5rem}
p{margin:.5rem 0;max-width:46rem}
.over,.quiet,.legend,footer{color:var(--soft);font-size:.875rem}
.lead{font-size:1.15rem;line-height:1.5}
.scroll{overflow-x:auto;margin:.8rem 0}
table{border-collapse:collapse;width:100%;font-variant-numeric:tabular-nums;font-size:.9375rem}
th{font-weight:600;color:var(--soft);font-size:.8125rem;text-align:right;white-space:nowrap}
td{text-align:right;white-space:nowrap}
th,td{padding:.45rem .7rem;border-bottom:1px solid var(--line)}
th:first-child,td:first-child{text-align:left;padding-left:0;white-space:normal}
td.words,th.words{text-align:left}
table.narrow{width:auto;min-width:18rem}
.bars{margin:1.2rem 0 1.4rem}
.bar{display:grid;grid-template-columns:minmax(6.5rem,11rem) 1fr 4rem;gap:.7rem;align-items:center;margin:.5rem 0}
.track{position:relative;height:1.35rem;background:var(--shade);border-radius:3px}
.fill{position:absolute;inset:0 auto 0 0;background:var(--main);border-radius:3px;opacity:.85}
.whisker{position:absolute;top:50%;height:.55rem;margin-top:-.275rem;border:solid var(--ink);border-width:0 1.5px}
.whisker::after{content:"";position:absolute;left:0;right:0;top:50%;border-top:1.5px solid var(--ink)}
.figure{text-align:right;white-space:nowrap;font-variant-numeric:tabular-nums;font-weight:600}
.grid2{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,20rem),1fr));gap:1.2rem}
figure{margin:0}
figcaption{font-weight:600;font-size:.9375rem;margin-bottom:.3rem}
svg{width:100%;height:auto;display:block}
svg text{font-size:11px;fill:var(--soft)}
.grid{stroke:var(--line)}
polyline{fill:none;stroke-width:1.6;stroke-linejoin:round}
polyline.train{stroke:var(--pale);stroke-width:1.4}polyline.valid{stroke:var(--main)}
circle.train{fill:var(--pale)}circle.valid{fill:var(--main)}
.key{font-weight:400;margin-left:.7rem;white-space:nowrap}
.key::before{content:"";display:inline-block;width:.9rem;height:3px;margin-right:.35rem;vertical-align:middle;
background:var(--pale)}
.key.valid::before{background:var(--main)}
article{border:1px solid var(--line);border-radius:6px;padding:.8rem 1rem;margin:.8rem 0}
article h4{margin:0 0 .5rem;font-size:1rem;font-weight:600}
.gold{color:var(--soft);font-weight:400;white-space:nowrap}
.said{background:var(--shade);border-radius:4px;padding:.5rem .7rem;margin:.25rem 0 0;white-space:pre-wrap;
overflow-wrap:anywhere;font:.8438rem/1.5 ui-monospace,SFMono-Regular,Menlo,Consolas,"Liberation Mono",monospace}
.mark{font-size:.8125rem;font-weight:600}.mark.good{color:var(--good)}.mark.bad{color:var(--bad)}
table.dense{font-size:.8438rem}.dense th{font-size:.75rem}.dense th,.dense td{padding:.4rem .42rem}
.dense th:first-child,.dense td:first-child{padding-left:0}
table.matrix{width:auto}.matrix th,.matrix td{padding:.3rem .55rem}.matrix td{min-width:2.4rem;text-align:right}
.matrix th:first-child{padding-left:0}.matrix tbody th{color:var(--ink)}
.matrix .hit{outline:1.5px solid var(--main);outline-offset:-1.5px}
details{border-top:1px solid var(--line);padding:.5rem 0}
summary{cursor:pointer;font-weight:600}
footer{margin-top:3rem;border-top:1px solid var(--line);padding-top:.8rem}
@media (max-width:34rem){main{padding-top:1.2rem}h1{font-size:1.45rem}.lead{font-size:1.05rem}
.bar{grid-template-columns:1fr 3.9rem;gap:.1rem .6rem}.bar .name{grid-column:1/-1}
table.wide,.wide tbody,.wide tr,.wide td{display:block}.wide thead{display:none}
.wide tr{padding:.5rem 0;border-bottom:1px solid var(--line)}
.wide td{display:flex;justify-content:space-between;gap:1rem;border:0;padding:.12rem 0}
.wide td:first-child{font-weight:600}.wide td[data-name]::before{content:attr(data-name);color:var(--soft)}}
@media print{details{display:none}}
"""


def page(title: str, body: str) -> str:
    """A whole document around `body`, which is HTML already."""
    return (
        "<!doctype html>\n<html lang='en'><head><meta charset='utf-8'>"
        "<meta name='viewport' content='width=device-width,initial-scale=1'>"
        f"<title>{escape(title)}</title><style>{_STYLE}</style></head>\n<body><main>\n{body}\n</main></body></html>\n"
    )


def section(title: str, *parts: str) -> str:
    """A heading and what is under it; nothing when there is nothing under it."""
    inner = "\n".join(part for part in parts if part)
    return f"<section><h2>{escape(title)}</h2>\n{inner}\n</section>" if inner else ""


def table(columns: Sequence[str], rows: Sequence[Sequence[str]], words: Sequence[int] = ()) -> str:
    """A table of plain text; columns listed in `words` are set as text, the others as figures."""
    if not rows:
        return ""

    head = "".join(f"<th{_class(i, words)}>{escape(name)}</th>" for i, name in enumerate(columns))
    body = "".join(f"<tr>{''.join(_cells(columns, row, words))}</tr>" for row in rows)
    kind = "narrow" if len(columns) <= 3 else "wide" if len(columns) <= 9 else "wide dense"
    return (
        f"<div class='scroll'><table class='{kind}'><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>"
    )


def matrix(corner: str, columns: Sequence[str], rows: Sequence[tuple[str, Sequence[int]]]) -> str:
    """A table of counts that stays a table on a phone; cells are shaded by their share of the row, hits are framed.

    A hit is a cell whose column has the name of its row.
    """
    head = "".join(f"<th>{escape(name)}</th>" for name in (corner, *columns))
    body = "".join(f"<tr><th>{escape(name)}</th>{''.join(_shaded(name, columns, row))}</tr>" for name, row in rows)
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
        name = f" data-name='{escape(columns[index])}'" if columns[index] else ""
        yield f"<td{_class(index, words)}{name}>{escape(text)}</td>"


def _class(index: int, words: Sequence[int]) -> str:
    return " class='words'" if index in words else ""


def paragraph(text: str, kind: str = "") -> str:
    """A paragraph of plain text with a class."""
    return f"<p class='{kind}'>{escape(text)}</p>" if kind else f"<p>{escape(text)}</p>"


def folded(summary: str, inner: str) -> str:
    """HTML that unfolds; nothing when there is none."""
    return f"<details><summary>{escape(summary)}</summary>{inner}</details>" if inner else ""


def details(summary: str, text: str) -> str:
    """Plain text that unfolds."""
    return folded(summary, f"<div class='said'>{escape(text)}</div>")
