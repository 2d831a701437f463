"""The page of a command line: what may be opened, and where judgements go."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ramify.sample.llamacpp.choices import find_gguf
from ramify.serve.cabinet import Cabinet
from ramify.serve.page.context import Page
from ramify.serve.page.feedback import Feedback
from ramify.serve.voices import Voice, open_voice


@dataclass(frozen=True, slots=True)
class Opener:
    """Opens models by name.

    Attributes:
        n_ctx: tokens that GGUF files have room for; None: what each was built for. Other models have their own.
    """

    n_ctx: int | None = None

    def __call__(self, name: str) -> Voice:
        """Open one.

        Raises:
            RamifyError: it cannot be opened.
        """
        room = self.n_ctx if self.n_ctx is not None and find_gguf(name) is not None else None
        return open_voice(name, n_ctx=room)


def page_for(
    models: tuple[str, ...], runs: Path, feedback: Path | None, *, keep: int, n_ctx: int | None, typed: bool
) -> Page:
    """The page for some models and a folder of runs.

    Args:
        feedback: file of judgements; None: feedback.jsonl in the folder of runs.
        keep: most models that are open at once.
        n_ctx: as `Opener`.
        typed: whether names beside the listed ones may be opened.
    """
    cabinet = Cabinet(Opener(n_ctx), keep=keep)
    return Page(cabinet, Feedback(feedback or runs / "feedback.jsonl"), models, runs, typed)
