"""A model one can talk to: what completes, what makes its prompts, how it is drawn from. No torch here."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from ramify.base.config import Sampling
from ramify.base.types import Conversation
from ramify.evaluate.settings import DEFAULT_TEMPERATURE
from ramify.sample.service import Service

CHAT = Sampling(temperature=DEFAULT_TEMPERATURE, max_new_tokens=512)
"""How answers are drawn in a conversation, unless someone says otherwise."""


class Speech(Protocol):
    """How a conversation becomes a prompt."""

    def prompt_ids(self, prompt: Conversation) -> tuple[int, ...]:
        """Token ids up to where the model speaks."""
        ...

    def text(self, prompt: Conversation) -> str:
        """The same as text."""
        ...

    def plain_ids(self, text: str) -> tuple[int, ...]:
        """Token ids of a text that no template is put around."""
        ...


@dataclass(frozen=True)
class Voice:
    """A model one can talk to.

    Attributes:
        name: as the user wrote it.
        service: completes prompts.
        renderer: makes them; it puts in the system turn and the worked turns of the run the voice comes from. A
            conversation that begins with an empty system turn gets no system turn at all.
        system: the system turn that conversations without one of their own get, or None.
        settings: how answers are drawn unless someone says otherwise: a run's own length and stop strings.
        base: opens the model as it was before its training, prompted alike; None where nothing says what it was.
    """

    name: str
    service: Service
    renderer: Speech
    system: str | None = None
    settings: Sampling = CHAT
    base: Callable[[], Voice] | None = None

    def close(self) -> None:
        """End its requests and let the memory go."""
        self.service.close()
