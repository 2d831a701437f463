"""Chat templates: the model's own, two of ours, the plain form, or a Jinja file.

    model    the template that came with the tokenizer
    chatml   <|im_start|>role\\n … <|im_end|>\\n
    llama3   <|start_header_id|>role<|end_header_id|>\\n\\n … <|eot_id|>, without the dated system turn of Llama 3.1
    plain    question, space, answer: no roles, no special tokens but the stop token
    FILE     a Jinja file

Special tokens of a template are found by rendering a probe conversation, never by reading the template's text.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jinja2

from ramify.base.errors import ConfigError, DataError, nearest
from ramify.base.types import Conversation, Message

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

CHATML = (
    "{%- for message in messages -%}"
    "{{- '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>\\n' -}}"
    "{%- endfor -%}"
    "{%- if add_generation_prompt -%}{{- '<|im_start|>assistant\\n' -}}{%- endif -%}"
)
LLAMA3 = (
    "{%- for message in messages -%}"
    "{{- '<|start_header_id|>' + message['role'] + '<|end_header_id|>\\n\\n' -}}"
    "{{- message['content'] | trim + '<|eot_id|>' -}}"
    "{%- endfor -%}"
    "{%- if add_generation_prompt -%}{{- '<|start_header_id|>assistant<|end_header_id|>\\n\\n' -}}{%- endif -%}"
)
PLAIN = (
    "{%- for message in messages -%}"
    "{%- if message['role'] == 'assistant' -%}"
    "{{- ('' if message['content'][:1] in [' ', '\\n', '\\t'] else ' ') + message['content'] + '\\n\\n' -}}"
    "{%- else -%}"
    "{{- message['content'] + ('\\n\\n' if message['role'] == 'system' else '') -}}"
    "{%- endif -%}"
    "{%- endfor -%}"
)
"""`plain` as Jinja, for files that carry their template with them."""
CHOICES = ("model", "chatml", "llama3", "plain", "FILE")
_OWN = {"chatml": CHATML, "llama3": LLAMA3}
_BOS = "{{- bos_token -}}"
_QUESTION, _ANSWER = "Probequestion", "Probeanswer"
_SPECIAL = re.compile(r"<\|[^\s|<>]{1,40}\|>|<(?:start|end)_of_[a-z]{1,20}>")


@dataclass(frozen=True, slots=True)
class Template:
    """A chat template fitted to one tokenizer.

    Attributes:
        name: as it was asked for.
        source: Jinja, as it should be saved with the tokenizer; None for `plain`.
    """

    name: str
    source: str | None

    @property
    def is_plain(self) -> bool:
        """Whether conversations are written as question and answer, without roles."""
        return self.source is None


def find_template(name: str, tokenizer: PreTrainedTokenizerBase) -> Template:
    """The template of that name for this tokenizer.

    `chatml` and `llama3` begin with the BOS token exactly when the tokenizer puts one before plain text.

    Raises:
        ConfigError: the name is none of the choices, the tokenizer has no template of its own, or the file cannot
            be read or is not Jinja.
    """
    if name == "plain":
        return Template(name, None)
    if name in _OWN:
        return Template(name, (_BOS if adds_bos(tokenizer) else "") + _OWN[name])
    source = _model_template(tokenizer) if name == "model" else _read_file(name)
    return Template(name, source)


def render(
    tokenizer: PreTrainedTokenizerBase, template: Template, conversation: Conversation, *, generation: bool
) -> str:
    """The conversation as text; with `generation`, up to where the assistant speaks.

    Raises:
        DataError: the template refuses the conversation (a role it does not know, turns that do not alternate).
        ConfigError: the template itself is broken.
    """
    return _rendered(tokenizer, template, (conversation,), generation)[0]


def render_many(
    tokenizer: PreTrainedTokenizerBase, template: Template, conversations: Sequence[Conversation]
) -> list[str]:
    """Each conversation as text, up to where the assistant speaks; errors as for `render`, of any of them."""
    return _rendered(tokenizer, template, conversations, generation=True)


def _rendered(
    tokenizer: PreTrainedTokenizerBase, template: Template, conversations: Sequence[Conversation], generation: bool
) -> list[str]:
    if template.source is None or not conversations:
        return [render_plain(each) for each in conversations]
    turns = [[{"role": message.role, "content": message.content} for message in each] for each in conversations]
    try:
        texts: Any = tokenizer.apply_chat_template(
            turns, chat_template=template.source, tokenize=False, add_generation_prompt=generation
        )
    except jinja2.TemplateSyntaxError as error:
        raise ConfigError(f"chat template {template.name}, line {error.lineno}: {error.message}") from None
    except (jinja2.TemplateError, TypeError, KeyError, ValueError) as error:
        roles = ", ".join(message.role for message in conversations[0])
        hint = "this model has no system turn: put the text into the question" if "system" in roles else None
        raise DataError(f"chat template {template.name} refuses the turns {roles}: {error}", hint=hint) from None
    return list(map(str, texts))


def render_plain(conversation: Conversation) -> str:
    """`system`, blank line, worked turns as `question answer` with a blank line after each, then the question."""
    parts: list[str] = []
    for message in conversation:
        if message.role == "assistant":
            parts.append(f"{'' if message.content[:1].isspace() else ' '}{message.content}\n\n")
        else:
            parts.append(f"{message.content}\n\n" if message.role == "system" else message.content)
    return "".join(parts)


def adds_bos(tokenizer: PreTrainedTokenizerBase) -> bool:
    """Whether the tokenizer puts its BOS token before plain text."""
    bos = tokenizer.bos_token_id
    if bos is None:
        return False
    with_special = encode(tokenizer, "a", special=True)
    return with_special[:1] == (bos,) and encode(tokenizer, "a")[:1] != (bos,)


def encode(tokenizer: PreTrainedTokenizerBase, text: str, *, special: bool = False) -> tuple[int, ...]:
    """Token ids of a text; without `special`, nothing is put around them."""
    # verbose=False: too long sequences are refused with counts before a run, not warned about one by one.
    ids: Any = tokenizer(text, add_special_tokens=special, return_attention_mask=False, verbose=False)["input_ids"]
    return tuple(int(each) for each in ids)


def turn_end(tokenizer: PreTrainedTokenizerBase, template: Template) -> str | None:
    """The special token that follows an assistant's words, as text; None when the template has none.

    Found by rendering one exchange and looking at what comes behind the answer. It need not be in the tokenizer yet.
    """
    tail = _rendered_tail(tokenizer, template)
    positions = {tail.index(token): token for token in _special_texts(tokenizer) if token and token in tail}
    for match in _SPECIAL.finditer(tail):
        positions.setdefault(match.start(), match.group())
    return positions[min(positions)] if positions else None


def lead_in(tokenizer: PreTrainedTokenizerBase, template: Template) -> str:
    """White space that the template puts between the prompt for generation and the assistant's words.

    `plain` has one space; `[/INST] answer` has one too; most templates have none.
    """
    if template.is_plain:
        return " "
    prompt = render(tokenizer, template, _probe(answered=False), generation=True)
    whole = render(tokenizer, template, _probe(answered=True), generation=False)
    if not whole.startswith(prompt) or _ANSWER not in whole:
        return ""
    between = whole[len(prompt) : whole.rindex(_ANSWER)]
    return between if between.isspace() else ""


def missing_tokens(tokenizer: PreTrainedTokenizerBase, template: str | Template) -> tuple[str, ...]:
    """Special tokens that the template writes and the tokenizer does not know, in order of appearance.

    They should be added to tokenizer and model, and their embedding rows trained, before a `Renderer` is made.
    """
    found = template if isinstance(template, Template) else find_template(template, tokenizer)
    if found.is_plain or found.name == "model":
        return ()
    text = render(tokenizer, found, _probe(answered=True), generation=False)
    text += render(tokenizer, found, _probe(answered=False), generation=True)
    known = tokenizer.get_vocab()
    return tuple(token for token in dict.fromkeys(_SPECIAL.findall(text)) if token not in known)


def extend_tokenizer(
    tokenizer: PreTrainedTokenizerBase, template: Template
) -> tuple[PreTrainedTokenizerBase, tuple[str, ...]]:
    """A copy of the tokenizer that can write this template, and the special tokens that were added to it.

    The copy carries the template, and the token that ends a turn is its eos. The tokenizer itself is returned for
    `plain` and for the model's own template, which need nothing.
    """
    if template.is_plain or template.name == "model":
        return tokenizer, ()
    missing = missing_tokens(tokenizer, template)
    extended = copy.deepcopy(tokenizer)
    if missing:
        extended.add_special_tokens({"additional_special_tokens": list(missing)}, replace_extra_special_tokens=False)
    extended.chat_template = template.source
    stop = turn_end(extended, template)
    if stop is not None:
        extended.eos_token = stop
    return extended, missing


def _probe(*, answered: bool) -> Conversation:
    question = Message("user", _QUESTION)
    return (question, Message("assistant", _ANSWER)) if answered else (question,)


def _rendered_tail(tokenizer: PreTrainedTokenizerBase, template: Template) -> str:
    if template.is_plain:
        return ""
    _, found, tail = render(tokenizer, template, _probe(answered=True), generation=False).rpartition(_ANSWER)
    return tail if found else ""


def _special_texts(tokenizer: PreTrainedTokenizerBase) -> set[str]:
    added = {str(token) for token in tokenizer.added_tokens_decoder.values() if token.special}
    return added | {str(token) for token in tokenizer.all_special_tokens}


def _model_template(tokenizer: PreTrainedTokenizerBase) -> str:
    own: Any = tokenizer.chat_template
    if isinstance(own, dict):
        own = own.get("default")
    if not own:
        raise ConfigError(
            "the model has no chat template of its own; prompt.chat_template must be one of chatml, llama3, plain "
            "or a Jinja file",
            hint="for a base model prompt.chat_template=chatml; missing special tokens are added and trained",
        )
    return str(own)


def _read_file(name: str) -> str:
    path = Path(name)
    if not path.is_file():
        guess = nearest(name, CHOICES[:-1])
        asked = f"; did you mean {guess!r}?" if guess else ""
        raise ConfigError(
            f"prompt.chat_template {name!r} is neither a file nor one of {', '.join(CHOICES[:-1])}{asked}",
            hint="a file is a Jinja template that loops over `messages`",
        )
    try:
        source = path.read_text(encoding="utf-8-sig")
        jinja2.Environment(extensions=["jinja2.ext.loopcontrols"]).parse(source)
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read: {error}") from None
    except jinja2.TemplateSyntaxError as error:
        if "generation" not in str(error.message):
            raise ConfigError(f"{path}:{error.lineno}: not a Jinja template: {error.message}") from None
    if not source.strip():
        raise ConfigError(f"{path}: the chat template is empty")
    return source
