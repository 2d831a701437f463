"""What a tokenizer puts around a text, found by tokenising."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from ramify.base.errors import DataError, ModelError
from ramify.base.types import Message
from ramify.export.gguf.ends import templates_of
from ramify.prompts.templates import Template, encode, render

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_SPACE = "\u2581"


@dataclass(frozen=True, slots=True)
class Around:
    """What llama.cpp is told to put around a text.

    Attributes:
        bos: the bos token before it, and before prompts.
        eos: the eos token behind it.
        space: a space before its first word, and behind every special token.
        notes: where the tokenizer does otherwise.
    """

    bos: bool
    eos: bool
    space: bool = False
    notes: tuple[str, ...] = ()


def around(tokenizer: PreTrainedTokenizerBase, eos: int, *, spaced: bool) -> Around:
    """What this tokenizer puts around a text.

    Args:
        eos: the token that the file will name eos.
        spaced: it writes spaces as U+2581.

    Raises:
        ModelError: it puts other tokens there than bos and eos.
    """
    bare, whole = encode(tokenizer, "a"), encode(tokenizer, "a", special=True)
    starts = [start for start in range(len(whole)) if whole[start : start + len(bare)] == bare]
    before, behind = (whole[: starts[0]], whole[starts[0] + len(bare) :]) if starts else (whole, ())
    if not starts or before not in ((), (tokenizer.bos_token_id,)) or behind not in ((), (eos,)):
        shown = " ".join(tokenizer.convert_ids_to_tokens(list(whole)))
        raise ModelError(f"its tokenizer makes `{shown}` of `a`; llama.cpp can put bos before a text and eos behind it")
    begins, said = _begins(tokenizer, bool(before))
    if not spaced:
        return Around(begins, bool(behind), notes=said)
    space, notes = _space(tokenizer, eos)
    return Around(begins, bool(behind), space, (*notes, *said))


def _begins(tokenizer: PreTrainedTokenizerBase, before_texts: bool) -> tuple[bool, tuple[str, ...]]:
    """Whether llama.cpp puts bos before all that it is given: not where prompts were made without one.

    Some chat models (TinyLlama) have a tokenizer that puts bos before a text, and a template that writes none.
    """
    begun = _prompt(tokenizer) if before_texts else ()
    if not begun or begun[0] == tokenizer.bos_token_id:
        return before_texts, ()
    return False, ("its chat template writes no bos: llama.cpp is told to put none before a text",)


def _space(tokenizer: PreTrainedTokenizerBase, special: int) -> tuple[bool, tuple[str, ...]]:
    """Whether a space goes before a text and behind a special token, and what llama.cpp cannot do of it."""
    first = _spelled(tokenizer, "a").startswith(_SPACE)
    mark = str(tokenizer.convert_ids_to_tokens(special))
    further = _spelled(tokenizer, mark + "a").removeprefix(mark).startswith(_SPACE)
    if first == further:
        doubled = first and not _spelled(tokenizer, " a").startswith(2 * _SPACE)
        return first, ("llama.cpp puts a space before a text that begins with one, too",) if doubled else ()
    if not first:
        raise ModelError("its tokenizer puts a space behind special tokens alone, llama.cpp cannot")
    if _prompts_begin_special(tokenizer):
        return False, ("llama.cpp puts no space before a text without a special token in front",)
    return True, ("llama.cpp puts a space behind every special token, the tokenizer only before a text",)


def _spelled(tokenizer: PreTrainedTokenizerBase, text: str) -> str:
    return "".join(tokenizer.convert_ids_to_tokens(list(encode(tokenizer, text))))


def _prompts_begin_special(tokenizer: PreTrainedTokenizerBase) -> bool:
    """Whether a prompt by the chat template begins with a special token."""
    begun = _prompt(tokenizer)
    return bool(begun) and begun[0] in tokenizer.added_tokens_decoder


def _prompt(tokenizer: PreTrainedTokenizerBase) -> tuple[int, ...]:
    """Ids of a prompt by the chat template; empty without one."""
    source = templates_of(tokenizer).get("default")
    if source is None:
        return ()
    try:
        text = render(tokenizer, Template("model", source), (Message("user", "a"),), generation=True)
    except DataError:  # it wants turns of another kind
        return ()
    return encode(tokenizer, text)
