"""Problems as what an engine is given: token ids from a renderer, or turns where the engine renders them itself."""

from __future__ import annotations

from ramify.base.config import Prompting
from ramify.base.types import Conversation, Problem
from ramify.prompts.fewshot import load_fewshot, with_turns_before
from ramify.prompts.renderer import Renderer
from ramify.sample.sampler import PromptTokens, PromptTurns


class Turns:
    """Conversations for an engine that has the chat template: system turn and worked turns are put in, no more.

    Attributes:
        prompting: the settings it was made from.

    Raises:
        ConfigError: the worked turns cannot be read.
    """

    def __init__(self, prompting: Prompting) -> None:
        self.prompting = prompting
        self._worked: Conversation = () if prompting.fewshot is None else load_fewshot(prompting.fewshot)

    def conversation(self, prompt: Conversation) -> Conversation:
        """The prompt as `Renderer.conversation` completes it."""
        return with_turns_before(prompt, self.prompting.system, self._worked)


Asker = Renderer | Turns
"""What makes prompts of problems."""


def prompt_of(asker: Asker, problem: Problem) -> PromptTokens:
    """What the engine is given for a problem."""
    if isinstance(asker, Turns):
        return PromptTurns(problem.id, (), asker.conversation(problem.prompt))
    return PromptTokens(problem.id, asker.prompt_ids(problem.prompt))
