"""Evaluations whose questions, answers, categories and names are as bad as text can be."""

from __future__ import annotations

import random
from pathlib import Path

from compare_setup import record

from ramify.base.config import RunConfig
from ramify.base.types import Message, Problem, Reason, Sample, Stop, Verdict

HOSTILE = (
    "<script>document.title='owned'</script><img src='http://203.0.113.9/a.png' onerror=alert(1)>",
    "</div></article></section></main><h1>out</h1><style>*{display:none}</style>",
    "\x1b[2J\x1b[31mred\x07\x00\x9b\x7f",
    "\u202eright to left\u202c \u2067isolated\u2069 \u200f \u202elast",
    "zero\u200bwidth\ufeff\u00ad\u2060",
    "A" * 100_000,
    "مرحبا بالعالم ١٢٣ (abc) שלום",
    "Z" + "\u0301" * 300,
    "line\r\nline\n\n\n\u2028x\tt",
    "```` \n~~~ | a | b |\n# h\n- [x](http://203.0.113.9) ![y](http://203.0.113.9/b.png) <b>*_ www.example.org | $x$",
    "&lt;b&gt; &#60; &amp; &",
    "' onmouseover='alert(1) \" style=\"position:fixed;inset:0",
    "",
)
NAMES = ("before <b>\u202eabc | `x`", "after-a-name-that-somebody-chose-for-whatever-reason-and-that-has-no-end")


def write_hostile(folder: Path, right: float, n: int, seed: int, categories: int = 8) -> Path:
    """An evaluation of `n` problems, right with that chance, of which some failed in every other way."""
    draw = random.Random(seed)
    problems, samples, verdicts = [], [], []
    for i in range(n):
        text, other = HOSTILE[i % len(HOSTILE)], HOSTILE[(i * 7 + seed) % len(HOSTILE)]
        question = Message("user", f"{text} {i}?")
        group = f"{i % categories} {HOSTILE[i % categories][:30]}"
        problems.append(Problem(f"p{i}", (question,), f"gold {HOSTILE[(i + 1) % len(HOSTILE)]}"[:300], category=group))
        reason = Reason.CORRECT if draw.random() < right else draw.choice([*Reason][1:])
        stop = Stop.LENGTH if reason is Reason.TRUNCATED else Stop.EOS
        answer = f"The answer {draw.randint(0, 9)} is {other} ok"
        samples.append(Sample(f"p{i}", 0, (1,) * draw.randint(3, 40), (), answer, stop))
        read = text if reason in (Reason.CORRECT, Reason.WRONG) else None
        verdicts.append(Verdict(f"p{i}", 0, float(reason is Reason.CORRECT), reason, read, (f"note {other[:40]}",)))
    return record(folder, RunConfig(model="<i>model</i>\u202e"), problems, samples, verdicts)


def hostile_pair(root: Path, n: int) -> list[Path]:
    """Two evaluations of the same problems under hostile names; the second is right more often."""
    return [write_hostile(root / name, 0.4 + 0.2 * i, n, i + 1) for i, name in enumerate(NAMES)]
