"""Rows as one HTML file: trained and masked text in colour, nothing fetched, no script, readable on a phone."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING

from ramify.base.types import TokenSequence
from ramify.prompts.show import joined, spans

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_LONGEST = 6000
"""Characters of one stretch that are shown; the middle of a longer one is left out, and counted."""
_STYLE = """
:root{color-scheme:light dark;--ink:#1c2430;--soft:#5b6675;--line:#e3e7ec;--paper:#fff;--shade:#f6f7f9;
--trained:#0d5c2f;--mark:#d9f2e1}
@media (prefers-color-scheme:dark){:root{--ink:#e4e8ee;--soft:#9aa6b5;--line:#313a46;--paper:#14181e;--shade:#1c222a;
--trained:#a5e8bf;--mark:#17402a}}
*{box-sizing:border-box}
body{margin:0;background:var(--paper);color:var(--ink);font:16px/1.55 system-ui,-apple-system,"Segoe UI",Roboto,
"Noto Sans","Liberation Sans",sans-serif;-webkit-text-size-adjust:100%}
main{max-width:62rem;margin:0 auto;padding:1.6rem 1rem 4rem}
h1{font-size:1.45rem;line-height:1.2;margin:.1rem 0 .6rem;overflow-wrap:anywhere}
h2{font-size:1.1rem;margin:2.2rem 0 .6rem}
p{margin:.4rem 0;max-width:46rem}
article{border:1px solid var(--line);border-radius:6px;margin:.8rem 0;overflow:hidden}
header{display:flex;flex-wrap:wrap;justify-content:space-between;gap:.1rem 1rem;padding:.5rem .8rem;
border-bottom:1px solid var(--line);color:var(--soft);font-size:.875rem;font-variant-numeric:tabular-nums}
header b{color:var(--ink);font-weight:600;overflow-wrap:anywhere}
pre{margin:0;padding:.7rem .8rem;background:var(--shade);color:var(--soft);white-space:pre-wrap;overflow-wrap:anywhere;
font:.8438rem/1.55 ui-monospace,SFMono-Regular,Menlo,Consolas,"Liberation Mono",monospace}
mark{background:var(--mark);color:var(--trained);font-weight:600;border-radius:2px}
i{color:var(--soft)}
"""


@dataclass(frozen=True, slots=True)
class Shown:
    """A row, or one side of it.

    Attributes:
        source: where it stood.
        name: of the side; empty when there is only one.
        sequences: that begin alike are shown as one text.
    """

    source: str
    name: str
    sequences: Sequence[TokenSequence]


@dataclass(frozen=True, slots=True)
class Section:
    """Rows under a heading."""

    title: str
    rows: Sequence[Shown]


def rows_page(title: str, tokenizer: PreTrainedTokenizerBase, sections: Sequence[Section]) -> str:
    """A whole document. Everything that comes from rows is escaped."""
    body = "\n".join(_section(tokenizer, section) for section in sections)
    return (
        "<!doctype html>\n<html lang='en'><head><meta charset='utf-8'>"
        "<meta name='viewport' content='width=device-width,initial-scale=1'>"
        f"<title>{escape(title)}</title><style>{_STYLE}</style></head>\n<body><main>\n<h1>{escape(title)}</h1>\n"
        "<p>What the model sees, special tokens written out. <mark>Trained</mark>: the loss falls on these tokens. "
        f"The rest is read, not learnt.</p>\n{body}\n</main></body></html>\n"
    )


def _section(tokenizer: PreTrainedTokenizerBase, section: Section) -> str:
    rows = "\n".join(_article(tokenizer, row, one) for row in section.rows for one in joined(row.sequences))
    return f"<section><h2>{escape(section.title[:1].upper() + section.title[1:])}</h2>\n{rows}\n</section>"


def _article(tokenizer: PreTrainedTokenizerBase, row: Shown, sequence: TokenSequence) -> str:
    trained = sum(weight != 0 for weight in sequence.weights)
    said = f"{trained:,} of {len(sequence.ids):,} tokens trained"
    name = ", ".join(part for part in (row.source, row.name) if part) or "row"
    return (
        f"<article><header><b>{escape(name)}</b><span>{said}</span></header>"
        f"<pre>\n{''.join(_spans(tokenizer, sequence))}</pre></article>"  # HTML drops the first line end of a pre
    )


def _spans(tokenizer: PreTrainedTokenizerBase, sequence: TokenSequence) -> Iterator[str]:
    for span in spans(tokenizer, sequence):
        text = escape(span.text)
        if len(span.text) > _LONGEST:
            half = _LONGEST // 2
            gap = f"<i>\n… {len(span.text) - 2 * half:,} characters …\n</i>"
            text = escape(span.text[:half]) + gap + escape(span.text[-half:])
        yield f"<mark>{text}</mark>" if span.trained else text
