"""The tables of a comparison, as words: what the page and its Markdown both show."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from ramify.base.types import Reason
from ramify.evaluate import words
from ramify.evaluate.compare.arms import Arm
from ramify.evaluate.compare.comparison import Comparison
from ramify.evaluate.compare.contrasts import Contrast, Length, PassAt
from ramify.evaluate.compare.provenance import Training
from ramify.evaluate.stages import Stage
from ramify.evaluate.statistics.findings import Finding

FORMS = {
    Reason.CORRECT: "right",
    Reason.WRONG: "wrong",
    Reason.NO_ANSWER: "no answer",
    Reason.TRUNCATED: "cut off",
}
"""How an answer can end, apart from a failure of the grader."""
_NONE = "–"


class Table(NamedTuple):
    """A table of words; columns listed in `words` are set as text, the others as figures."""

    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    words: Sequence[int] = ()


def claims(found: Mapping[str, Finding]) -> Table:
    """Claims by name: what is shown, the difference with its interval, and the pairs behind it."""
    family = any(each.tests > 1 for each in found.values())
    wanting = any(words.needed(each) != _NONE for each in found.values())
    columns = ["", "finding", "points (95 % interval)", "fixed", "broken", "both right", "both wrong", "p"]
    columns += ["p, corrected"] if family else []
    columns += ["problems"] + (["would need"] if wanting else [])
    rows = []
    for name, each in found.items():
        pair = each.paired
        counts = (pair.fixed, pair.broken, pair.both_right, pair.both_wrong)
        row = [name, words.outcome(each), words.points(pair), *(f"{count:,}" for count in counts)]
        row += [words.p_value(p) for p in ((pair.p, each.p_adjusted) if family else (pair.p,))]
        row += [f"{pair.n:,}"] + ([words.needed(each)] if wanting else [])
        rows.append(row)
    return Table(columns, rows, words=(1,))


def leading(comparison: Comparison) -> list[Contrast]:
    """The last arm against the first, and against the best of those between."""
    arms = comparison.arms
    between = arms[1:-1]
    rivals = [arms[0], *([max(between, key=lambda arm: arm.scores.accuracy.value)] if between else [])]
    return [each for each in comparison.contrasts if each.after is arms[-1] and each.before in rivals]


def subject(comparison: Comparison) -> str:
    """What was asked: task, number of problems, and what the others are held against."""
    first = comparison.arms[0]
    settings = first.stage.record.get("config") or {}
    task = (settings.get("task") or {}).get("name", "")
    count = max((each.overall.paired.n for each in comparison.contrasts), default=0)
    return f"{task} · {count:,} questions · held against {first.name}, model {settings.get('model', '')}"


def overall(contrasts: Sequence[Contrast]) -> Table:
    """Every contrast's claim about correctness."""
    return claims({title(each): each.overall for each in contrasts})


def title(contrast: Contrast) -> str:
    """A contrast's name: `base → tuned`."""
    return f"{contrast.before.name} → {contrast.after.name}"


def forms(arm: Arm) -> dict[Reason, int]:
    """Answers by how they ended; those the grader failed on are not among them."""
    counted = Counter(verdict.reason for answers in arm.answers for _, verdict in answers)
    return {reason: counted[reason] for reason in FORMS}


def form_counts(arms: Sequence[Arm]) -> Table:
    """The same for each arm, as a table."""
    rows = [[arm.name, *(f"{count:,}" for count in forms(arm).values()), f"{arm.scores.errors:,}"] for arm in arms]
    return Table(["", *FORMS.values(), "grader failed"], rows)


def form_table(contrasts: Sequence[Contrast]) -> Table:
    """Format failures apart from wrong answers: whether there was an answer, and how often it was right if so."""
    rows = [
        [*_claimed(each, each.answered), *(words.rate(found) for found in each.right_when_answered)]
        for each in contrasts
    ]
    columns = ["", "can be read", "points (95 % interval)", "right of those, before", "right of those, after"]
    return Table(columns, rows, words=(1,))


def answer_table(arms: Sequence[Arm]) -> Table:
    """Rates of each arm, its answers' length, and how many there are."""
    columns = ["", "correct", "answered", "ended by itself", "cut off", "new tokens", "answers", "problems"]
    rows = []
    for arm in arms:
        s = arm.scores
        rates = (s.accuracy, s.answer_rate, s.stop_rate, s.truncated)
        tokens = f"{s.tokens:.1f}" if s.tokens else _NONE
        rows.append([arm.name, *map(words.rate, rates), tokens, f"{s.samples:,}", f"{s.n:,}"])
    return Table(columns, rows)


def change_table(contrasts: Sequence[Contrast]) -> Table:
    """What each contrast shows of ending by itself and of length."""
    rows = [[*_claimed(each, each.ended), *_lengths(each.length)] for each in contrasts]
    columns = ["", "ending by itself", "points (95 % interval)", "new tokens", "difference in tokens"]
    return Table(columns, rows, words=(1,))


def _claimed(contrast: Contrast, found: Finding) -> list[str]:
    """A contrast's name, what one of its findings shows, and the difference with its interval."""
    return [title(contrast), words.outcome(found), words.points(found.paired)]


def _lengths(found: Length | None) -> tuple[str, str]:
    """New tokens before and after, and the difference with its interval."""
    if found is None:
        return _NONE, _NONE
    pair = found.paired
    low, value, high = (words.signed(each) for each in (pair.low, pair.difference, pair.high))
    return f"{found.before:.1f} → {found.after:.1f}", f"{value} ({low} to {high})"


def chances(contrasts: Sequence[Contrast]) -> Table:
    """The chance that one of k samples is right, for each contrast and k; no rows where one sample was drawn."""
    rows = [
        [title(each), f"right at least once in {k}", *map(words.percent, (found.before, found.after)), _chance(found)]
        for each in contrasts
        for k, found in each.pass_at_k.items()
    ]
    return Table(["", "pass@k", "before", "after", "points (95 % interval)"], rows, words=(1,))


def _chance(found: PassAt) -> str:
    low, value, high = (words.signed(100 * each) for each in (found.low, found.after - found.before, found.high))
    return f"{value} ({low} to {high})"


def votes(arms: Sequence[Arm]) -> Table:
    """Share of problems whose most frequent answer of k is right; no rows where one sample was drawn."""
    ks = sorted({k for arm in arms for k in arm.scores.maj_at_k if k > 1})
    rows = [[arm.name, *(_share(arm.scores.maj_at_k, k) for k in ks)] for arm in arms] if ks else []
    return Table(["", *(f"maj@{k}" for k in ks)], rows)


def _share(values: Mapping[int, float], k: int) -> str:
    return words.percent(values[k]) if k in values else _NONE


def trained(comparison: Comparison) -> Table:
    """What each arm was trained on, a column an arm that was trained; values that differ between seeds are listed."""
    known = [(arm.name, found) for arm, found in zip(comparison.arms, comparison.trained, strict=True) if found]
    told = {label: [_each(found, tell) for _, found in known] for label, tell in _TOLD.items()}
    rows = [[label, *values] for label, values in told.items() if any(value != _NONE for value in values)]
    return Table(["", *(name for name, _ in known)], rows if known else [], words=range(1, len(known) + 1))


def _each(found: Sequence[Training], tell: Callable[[Training], object]) -> str:
    """What is told of the trainings of an arm: once where all agree."""
    values = dict.fromkeys(_written(tell(each)) for each in found)
    return ", ".join(values)


def _written(value: object) -> str:
    if value in (None, ""):
        return _NONE
    return f"{value:,.0f}" if isinstance(value, int | float) else str(value)


def _lineage(found: Training) -> str:
    """The runs that a training stands on, nearest first."""
    above = [f"{each.folder} ({each.method}; {_lineage(each)})" for each in found.parents]
    return "; ".join([*above, *found.gone]) or found.model


def _hashes(found: Training) -> str:
    return ", ".join(f"{name} {value[:12]}" for name, value in found.hashes.items())


_TOLD: dict[str, Callable[[Training], object]] = {
    "method": lambda each: each.method,
    "started from": lambda each: each.model,
    "rows from": lambda each: each.data,
    "rows": lambda each: each.rows,
    "optimizer steps": lambda each: each.steps,
    "tokens": lambda each: each.tokens,
    "trained tokens": lambda each: each.trained_tokens,
    "seconds of training": lambda each: each.seconds,
    "seed": lambda each: None if each.seed is None else str(each.seed),
    "stands on": _lineage,
    "SHA-256": _hashes,
}
"""What is told of a training, and what it is called."""


def folders(stages: Sequence[Stage]) -> Table:
    """Where each evaluation lies, and the training that it measured."""
    rows = [[each.name, str(each.folder), str(each.training or _NONE)] for each in stages]
    return Table(["", "evaluation", "training"], rows, words=(1, 2))


def settings(comparison: Comparison) -> Table:
    """Settings that the arms do not share, a column an arm."""
    rows = [[f"{each.scope}: {each.name}", *(value or _NONE for value in each.values)] for each in comparison.settings]
    return Table(["", *(arm.name for arm in comparison.arms)], rows, words=range(1, len(comparison.arms) + 1))


def method(comparison: Comparison) -> list[str]:
    """How the figures of a comparison were made; a sentence or two each."""
    contrasts, tests = comparison.contrasts, len(comparison.contrasts)
    told = [_PAIRS, _INTERVALS]
    told += [_SAMPLES] if any(arm.scores.samples > arm.scores.n * arm.seeds for arm in comparison.arms) else []
    told += [_SEEDS] if any(each.across_seeds for each in contrasts) else []
    families = [f"the {tests} comparisons"] if tests > 1 else []
    families += ["the categories of each comparison"] if any(each.categories for each in contrasts) else []
    corrected = f"Claims made together are corrected together (Holm 1979): {' and, apart from them, '.join(families)}. "
    told.append((corrected + _CORRECTED) if families else "There is one comparison, so its p needs no correction.")
    return [*told, _SHOWN]


_PAIRS = (
    "Each problem is compared with itself. Fixed: wrong before and right after. Broken: right before and wrong after. "
    "What the grader failed on is left out of every figure."
)
_INTERVALS = (
    "Intervals are 95 %: Wilson's (1927) for shares, Tango's (1998) for differences of paired shares. p is that of "
    "McNemar's exact test, two-sided: whether as many were broken as were fixed."
)
_SAMPLES = (
    "Where a problem has several samples it is still the problem that counts: intervals of differences are bootstrap "
    "intervals over problems (Tango's where no problem moved), and p is that of a permutation test that flips the sign "
    "of each problem's difference. Fixed and broken are then problems whose share of right answers rose or fell."
)
_SEEDS = (
    "Where a training was done with several seeds, figures are means over them; interval and p of a difference cover "
    "the variance between seeds as well as that between problems (Zou & Donner 2008). Intervals of a single rate, and "
    "those of pass@k, cover the problems alone."
)
_CORRECTED = "The chance of any false claim among them stays at 5 %."
_SHOWN = (
    "Better or worse is said only where the interval excludes 0 and the corrected p is at most 0.05. “Cannot be "
    "told” does not mean that there is no difference. “Would need”: the number of problems with which a "
    "difference of the size seen is shown in 80 of 100 comparisons (Connor 1987)."
)
