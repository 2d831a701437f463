"""Conversations written out as one text, with a marker where each turn begins.

    <|im_start|>user                                     ChatML
    <|start_header_id|>user<|end_header_id|>             Llama 3
    <start_of_turn>user                                  Gemma
    <|user|>                                             Zephyr, TinyLlama, Phi
    [INST] … [/INST] …   <<SYS>> … <</SYS>>              Llama 2, Mistral
    ### Instruction: ### Input: ### Response:            Alpaca; also ### Human: ### Assistant:
    User: … Assistant: …                                 at the start of lines, from the text's first line on

Where the first marker of the upper four ends its line, all of them begin or end one: a turn may speak of a marker.
White space around a turn and the tokens that end one (`</s>`, `<|im_end|>`, …) belong to the template, not to the turn.
"""

from __future__ import annotations

import re

from ramify.base.types import Message
from ramify.data.fields import Place

_NAMES = "instruction|input|response|human|user|assistant|system|question|answer"
_STYLES = {
    "chatml": re.compile(r"<\|im_start\|>[ \t]*(?P<role>\w+)"),
    "llama3": re.compile(r"<\|start_header_id\|>\s*(?P<role>\w+)\s*<\|end_header_id\|>"),
    "gemma": re.compile(r"<start_of_turn>[ \t]*(?P<role>\w+)"),
    "zephyr": re.compile(r"<\|(?P<role>system|user|human|assistant|model|tool|observation)\|>"),
    "inst": re.compile(r"(?P<role>\[/?INST\])"),
    "alpaca": re.compile(rf"###[ ]?(?P<role>{_NAMES})[ ]?:", re.IGNORECASE),
    "lines": re.compile(r"^(?P<role>System|User|Human|Assistant|AI|Bot|GPT):", re.MULTILINE),
}
_OWN_LINE = ("chatml", "llama3", "gemma", "zephyr")
_LINE_ENDS = re.compile(r"[ \t]*(?:\r?\n|\Z)")
_ROLES = {
    **dict.fromkeys(("user", "human", "instruction", "input", "question", "[inst]"), "user"),
    **dict.fromkeys(("assistant", "model", "response", "answer", "ai", "bot", "gpt", "[/inst]"), "assistant"),
    "system": "system",
}
_BEGIN = re.compile(r"\s*(?:(?:<s>|<bos>|<\|begin_of_text\|>|<\|endoftext\|>)\s*)*")
_END = ("</s>", "<|im_end|>", "<|eot_id|>", "<|end|>", "<end_of_turn>", "<|endoftext|>", "<|end_of_text|>", "<s>")
_SYSTEM = re.compile(r"\s*<<SYS>>(?P<system>.*?)<</SYS>>", re.DOTALL)


def marked_turns(text: str, field: str, place: Place) -> list[dict[str, str]] | None:
    """The turns of a text as {role, content}, to be read like any others: their order is not checked here.

    None where there is no marker: the text is no conversation.

    Raises:
        DataError: a marker names no known role, or text stands before the first one.
    """
    style = _style_of(text)
    if style is None:
        return None
    found = _markers(style, text)
    ends = [each.start() for each in found[1:]] + [len(text)]
    turns = _preamble(text[: found[0].start()], style, field, place)
    for marker, end in zip(found, ends, strict=True):
        name = marker["role"].lower()
        if name not in _ROLES:
            raise place.error(field, name, "a marker of system, user or assistant")
        _add(turns, name, text[marker.end() : end])
    return [{"role": turn.role, "content": turn.content} for turn in turns]


def _style_of(text: str) -> str | None:
    """The style of the first marker: what stands behind it may speak of others. Names at line starts come last."""
    style, first = None, len(text)
    for name, marker in _STYLES.items():
        found = None if name == "lines" and style else marker.search(text, 0, first)
        if found is not None:
            style, first = name, found.start()
    return None if style == "lines" and text[:first].strip() else style


def _markers(style: str, text: str) -> list[re.Match[str]]:
    """Where turns begin. A marker amid a line is one only where the first marker shows that they are written so."""
    found = list(_STYLES[style].finditer(text))
    if style not in _OWN_LINE or not _ends_line(found[0], text):
        return found
    return [each for each in found if _ends_line(each, text) or _begins_line(each, text)]


def _ends_line(marker: re.Match[str], text: str) -> bool:
    return _LINE_ENDS.match(text, marker.end()) is not None


def _begins_line(marker: re.Match[str], text: str) -> bool:
    before = text[: marker.start()].rstrip(" \t")
    return before.endswith(("\n", *_END)) or not before


def _add(turns: list[Message], marker: str, text: str) -> None:
    """One more turn; an input belongs to the instruction before it, and Llama 2 puts the system text into a turn."""
    system = _SYSTEM.match(text) if marker == "[inst]" and not turns else None
    if system is not None:
        turns.append(Message("system", system["system"].strip()))
        text = text[system.end() :]
    if marker == "input" and turns and turns[-1].role == "user":
        turns[-1] = Message("user", f"{turns[-1].content}\n\n{_content(text)}".strip())
    else:
        turns.append(Message(_ROLES[marker], _content(text)))


def _preamble(before: str, style: str, field: str, place: Place) -> list[Message]:
    begin = _BEGIN.match(before)
    rest = before[begin.end() if begin else 0 :].strip()
    if not rest:
        return []
    if style != "alpaca":
        raise place.error(field, rest, "a role marker at the beginning")
    return [Message("system", rest)]  # "Below is an instruction …"


def _content(text: str) -> str:
    text = text.strip()
    while (token := next((each for each in _END if text.endswith(each)), None)) is not None:
        text = text.removesuffix(token).rstrip()
    return text
