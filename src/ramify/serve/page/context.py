"""What all parts of the page share, and how an event reaches the session of the tab it comes from."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from inspect import isgeneratorfunction
from pathlib import Path
from typing import Any

from ramify.base.errors import ConfigError
from ramify.serve.cabinet import Cabinet
from ramify.serve.page.feedback import Feedback
from ramify.serve.page.sessions import Sessions
from ramify.serve.page.widgets import gradio
from ramify.serve.speech import Transcript, transcribe
from ramify.serve.voices import choices


@dataclass(frozen=True)
class Page:
    """What the page is made for.

    Attributes:
        cabinet: opens the models.
        feedback: where judgements go.
        models: names to choose from besides those that are found; the first one is chosen at the beginning.
        runs: folder with run folders; its runs, exports and GGUF files are choices too.
        typed: whether other names may be typed in. Who can, can have any model of the hub fetched.
        transcribe: speech to text.
    """

    cabinet: Cabinet
    feedback: Feedback
    models: tuple[str, ...] = ("nano",)
    runs: Path = Path("runs")
    typed: bool = True
    transcribe: Callable[[Path], Transcript] = transcribe
    sessions: Sessions = field(default_factory=Sessions)

    @property
    def first(self) -> str:
        """The model that is chosen at the beginning."""
        return self.choices()[0]

    def choices(self) -> list[str]:
        """Names of models to choose from."""
        return list(dict.fromkeys((*self.models, *choices(self.runs), "nano")))

    def allowed(self, name: str | None) -> str:
        """The name of a model as it may be opened from the page.

        Raises:
            ConfigError: there is none, or only listed ones may be opened.
        """
        name = (name or "").strip()
        if not name:
            raise ConfigError("choose a model first")
        if not self.typed and name not in self.choices():
            raise ConfigError(f"{name}: only the models of the list may be opened here")
        return name

    def on(self, name: str, event: Any, handler: Callable[..., Any], inputs: Sequence[Any], outputs: Any) -> None:
        """Have an event call `handler(session, *values of inputs)`; many at once, each for its own tab.

        Args:
            name: under which clients of the page's own interface call it.
        """
        sessions = self.sessions

        def answers(request: Any, *values: Any) -> Any:
            return handler(sessions.of(request.session_hash), *values)

        def streams(request: Any, *values: Any) -> Any:
            yield from handler(sessions.of(request.session_hash), *values)

        call = streams if isgeneratorfunction(handler) else answers
        call.__annotations__["request"] = gradio().Request  # how Gradio knows what to pass
        event(
            call,
            inputs=list(inputs),
            outputs=outputs,
            show_progress="hidden",
            concurrency_limit=None,
            api_name=name,
            api_visibility="undocumented",
        )
