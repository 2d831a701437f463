"""The renderer: the only place that turns conversations into tokens, for training and for generation alike.

The prompt is tokenised exactly as at generation. The completion is the tail of the joint text (prompt, completion)
when the prompt's ids are a prefix of the joint ids; otherwise it is tokenised behind a fixed sentinel, so that it
never gets a word-start space of its own, and the row is counted in `separate_count`. What follows a completion in
the template is cut to the one token that stops generation.

A plain text, an example whose prompt has no turns, is tokenised as for pretraining: BOS where the tokenizer puts one,
the text, eos. All of it is trained but its first token, which nothing predicts.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from ramify.base.config import Prompting
from ramify.base.errors import ConfigError, DataError
from ramify.base.types import Conversation, Example, TokenSequence
from ramify.prompts.fewshot import load_fewshot, with_turns_before
from ramify.prompts.templates import (
    Template,
    adds_bos,
    encode,
    find_template,
    lead_in,
    missing_tokens,
    render,
    render_many,
    turn_end,
)

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

# Three kinds of character, so that whatever a completion begins with, one of them does not merge with it.
_SENTINELS = ("\n", "0", "\ue000")


class Renderer:
    """Conversations to token ids, with one tokenizer and one way of prompting.

    Attributes:
        tokenizer: never changed here.
        prompting: the settings it was made from.
        template: the chat template, fitted to the tokenizer; `template.source` is what to save with the tokenizer.
        stop_id: the token a trained completion ends in: the template's turn end, or eos.
        stop_ids: every token that ends a completion: `stop_id`, eos, and those given (generation config).
        separate_count: completions so far that could not be taken from the joint text.

    Raises:
        ConfigError: the template cannot be used with this tokenizer, or nothing could end a completion.
    """

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        prompting: Prompting | None = None,
        *,
        stop_ids: tuple[int, ...] | None = None,
    ) -> None:
        self.tokenizer = tokenizer
        self.prompting = Prompting() if prompting is None else prompting
        self.template: Template = find_template(self.prompting.chat_template, tokenizer)
        self.separate_count = 0
        _refuse_missing(tokenizer, self.template)
        self._worked: Conversation = () if self.prompting.fewshot is None else load_fewshot(self.prompting.fewshot)
        self._lead = lead_in(tokenizer, self.template)
        self._start = (tokenizer.bos_token_id,) if adds_bos(tokenizer) else ()
        self._plain_start = self._start if self.template.is_plain else ()
        self.stop_id = self._find_stop(stop_ids or ())
        eos = () if tokenizer.eos_token_id is None else (int(tokenizer.eos_token_id),)
        self.stop_ids = tuple(dict.fromkeys((self.stop_id, *eos, *(stop_ids or ()))))

    def conversation(self, prompt: Conversation) -> Conversation:
        """The prompt with the system turn and the worked turns put in.

        A system turn of the prompt's own wins over `prompting.system`, which wins over the few-shot file's.
        """
        return with_turns_before(prompt, self.prompting.system, self._worked)

    def text(self, prompt: Conversation) -> str:
        """The prompt as text, up to where the model speaks."""
        return render(self.tokenizer, self.template, self.conversation(prompt), generation=True)

    def prompt_ids(self, prompt: Conversation) -> tuple[int, ...]:
        """Token ids of the prompt, up to where the model speaks; BOS at most once."""
        return self._prompt_ids(self.text(prompt))

    def completion_ids(self, prompt: Conversation, text: str) -> tuple[int, ...]:
        """Token ids of a completion behind this prompt, ending in `stop_id` exactly once.

        Raises:
            DataError: the text is empty, or holds the stop token before its end.
        """
        prompt_text = self.text(prompt)
        return self._completion_ids(prompt_text, self._prompt_ids(prompt_text), text)

    def sequences(self, example: Example) -> list[TokenSequence]:
        """One sequence for each completion: the prompt untrained, the completion trained with its weight.

        Without a prompt the completion is a plain text.

        Raises:
            DataError: nothing in the example is trained; names its source.
        """
        try:
            self.refuse_untrained(example)
            if not example.prompt:
                return [
                    TokenSequence.of(*self.alone(encode(self.tokenizer, each.text)), each.weight)
                    for each in example.completions
                ]
            prompt_text = self.text(example.prompt)
            prompt = self._prompt_ids(prompt_text)
            return [
                TokenSequence.of(prompt, self._completion_ids(prompt_text, prompt, each.text), each.weight)
                for each in example.completions
            ]
        except DataError as error:
            raise self.named(error, example) from None

    # --- the steps of it, for whoever brings ids of many texts at once (see `many`) ---

    def texts(self, prompts: Sequence[Conversation]) -> list[str]:
        """`text` of each prompt, in one call of the template engine."""
        return render_many(self.tokenizer, self.template, [self.conversation(prompt) for prompt in prompts])

    def refuse_untrained(self, example: Example) -> None:
        """Refuse an example without anything to train.

        Raises:
            DataError: none of its completions has a weight.
        """
        if not any(completion.weight for completion in example.completions):
            raise DataError("nothing to train: no completion with a weight above 0")

    def begun(self, ids: Sequence[int]) -> tuple[int, ...]:
        """Ids of a prompt from those of its text.

        Raises:
            DataError: there are none.
        """
        begun = (*self._plain_start, *ids)
        if not begun:
            raise DataError("the prompt is empty", hint="the first trained token needs a token before it")
        return begun

    def spoken(self, text: str) -> str:
        """A completion as it stands behind its prompt: with the white space that the template puts between them.

        Raises:
            DataError: it is empty.
        """
        if not text.strip():
            raise DataError("nothing to train: the completion is empty")
        return text if not self._lead or text[0].isspace() else self._lead + text

    def tail(self, prompt: tuple[int, ...], joint_ids: Sequence[int], spoken: str) -> tuple[int, ...]:
        """Ids of a completion, ended, from those of the joint text of prompt and completion.

        Args:
            prompt: from `begun`.
            joint_ids: of the prompt's text followed by `spoken`.

        Raises:
            DataError: the text holds the stop token before its end.
        """
        joint = (*self._plain_start, *joint_ids)
        if joint[: len(prompt)] == prompt:
            return self._ended(joint[len(prompt) :], self.stop_id)
        self.separate_count += 1
        return self._ended(self._behind_sentinel(spoken), self.stop_id)

    def alone(self, ids: Sequence[int]) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """The first token of a plain text, and all others, ended, from the ids of the text.

        eos may stand within it: texts that are written one behind the other are parted by it.

        Raises:
            DataError: it is a single token.
        """
        whole = tuple(ids) if tuple(ids[:1]) == self._start else (*self._start, *ids)
        eos = self.tokenizer.eos_token_id
        stop = self.stop_id if eos is None else int(eos)
        rest = whole[1:-1] if whole[-1:] == (stop,) else whole[1:]
        if not rest:
            raise DataError("nothing to train: the text is a single token")
        return whole[:1], (*rest, stop)

    def named(self, error: DataError, example: Example) -> DataError:
        """The error with the example's source in front."""
        return DataError(f"{example.source}: {error.message}" if example.source else error.message, hint=error.hint)

    def _prompt_ids(self, text: str) -> tuple[int, ...]:
        return self.begun(encode(self.tokenizer, text))

    def _completion_ids(self, prompt_text: str, prompt: tuple[int, ...], text: str) -> tuple[int, ...]:
        spoken = self.spoken(text)
        return self.tail(prompt, encode(self.tokenizer, prompt_text + spoken), spoken)

    def _behind_sentinel(self, text: str) -> tuple[int, ...]:
        for sentinel in _SENTINELS:
            before, joint = encode(self.tokenizer, sentinel), encode(self.tokenizer, sentinel + text)
            if before and joint[: len(before)] == before:
                return joint[len(before) :]
        raise DataError(f"the tokenizer cannot separate the completion {text[:40]!r} from what stands before it")

    def _ended(self, ids: tuple[int, ...], stop: int) -> tuple[int, ...]:
        body = ids[:-1] if ids[-1:] == (stop,) else ids
        if stop in body:
            token = self.tokenizer.convert_ids_to_tokens(stop)
            raise DataError(
                f"the completion holds the stop token {token!r} before its end",
                hint="split the row into turns (messages), or remove the token",
            )
        if not body:
            raise DataError("nothing to train: the completion is empty")
        return (*body, stop)

    def _find_stop(self, given: tuple[int, ...]) -> int:
        token = turn_end(self.tokenizer, self.template)
        known = self.tokenizer.get_vocab()
        if token is not None and token in known:
            return int(known[token])
        if self.tokenizer.eos_token_id is not None:
            return int(self.tokenizer.eos_token_id)
        if given:
            return given[0]
        raise ConfigError(
            f"chat template {self.template.name}: neither it nor the tokenizer has a token that ends a completion",
            hint="prompt.chat_template=chatml brings its own",
        )


def _refuse_missing(tokenizer: PreTrainedTokenizerBase, template: Template) -> None:
    missing = missing_tokens(tokenizer, template)
    if missing and template.name in ("chatml", "llama3"):
        raise ConfigError(
            f"chat template {template.name} needs tokens that the tokenizer lacks: {', '.join(missing)}",
            hint="training with this template adds them; without training use prompt.chat_template=plain",
        )
