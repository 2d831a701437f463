"""A comparison as JSON: every figure of the report, and the answers that changed."""

from __future__ import annotations

from typing import Any

from ramify.base.records import to_plain
from ramify.base.types import Sample, Verdict
from ramify.evaluate.compare.arms import Arm
from ramify.evaluate.compare.comparison import Comparison
from ramify.evaluate.compare.contrasts import Contrast, Flip
from ramify.evaluate.compare.facts import FORMS, forms


def as_plain(comparison: Comparison) -> dict[str, Any]:
    """The comparison as JSON-ready values. Shares are between 0 and 1, lengths are tokens."""
    trained = zip(comparison.arms, comparison.trained, strict=True)
    return {
        "title": comparison.title,
        "notes": list(comparison.notes),
        "arms": [{**_arm(arm), "trained": to_plain(list(found))} for arm, found in trained],
        "contrasts": [_contrast(each) for each in comparison.contrasts],
        "settings": to_plain(list(comparison.settings)),
    }


def _arm(arm: Arm) -> dict[str, Any]:
    return {
        "name": arm.name,
        "evaluations": [str(stage.folder) for stage in arm.stages],
        "seeds": arm.seeds,
        "scores": to_plain(arm.scores),
        "forms": {name: forms(arm)[reason] for reason, name in FORMS.items()},
    }


def _contrast(contrast: Contrast) -> dict[str, Any]:
    whole = (
        "verdict",
        "by_category",
        "overall",
        "answered",
        "ended",
        "right_when_answered",
        "length",
        "categories",
        "pass_at_k",
    )
    figures = {name: to_plain(getattr(contrast, name)) for name in (*whole, "across_seeds", "seeds_matter")}
    names = {"before": contrast.before.name, "after": contrast.after.name}
    return {**names, **figures, "flips": [_flip(contrast, each) for each in contrast.flips]}


def _flip(contrast: Contrast, flip: Flip) -> dict[str, Any]:
    near = contrast.near.get(flip.problem.id, ())
    return {
        "problem": flip.problem.id,
        "kind": flip.kind.value,
        "category": flip.problem.category,
        "question": flip.problem.prompt[-1].content,
        "gold": flip.problem.answer,
        "before": _answer(flip.before, flip.before_verdict),
        "after": _answer(flip.after, flip.after_verdict),
        **({"near": to_plain(list(near))} if near else {}),
    }


def _answer(sample: Sample, verdict: Verdict) -> dict[str, Any]:
    found = {"text": sample.text, "reason": verdict.reason.value, "answer": verdict.answer, "stop": sample.stop.value}
    return {**found, "notes": list(verdict.notes)} if verdict.notes else found
