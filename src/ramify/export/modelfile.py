"""A Modelfile for Ollama: the file, how turns are written, what ends an answer, the system turn.

Ollama writes turns by a Go template. Those of known families come from one table, from which both the Go text and the
expected rendering are made; a model's own template is one of them when it renders probe conversations alike. For any
other no TEMPLATE is written, and Ollama goes by the template in the GGUF file.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ramify.base.errors import DataError
from ramify.base.types import Conversation, Message
from ramify.prompts.renderer import Renderer
from ramify.prompts.templates import render

_ROLES = ("system", "user", "assistant")
_PROBES: tuple[Conversation, ...] = (
    (Message("user", "Probe one"),),
    (Message("user", "Probe one"), Message("assistant", "Probe two"), Message("user", "Probe three")),
)


@dataclass(frozen=True, slots=True)
class Turns:
    """How a family writes turns.

    Attributes:
        name: of the family.
        around: text before and behind the words of each role; a role that is missing has no turn of its own.
        opening: text behind which the assistant speaks.
    """

    name: str
    around: dict[str, tuple[str, str]]
    opening: str

    def rendered(self, conversation: Conversation) -> str:
        """The conversation up to where the assistant speaks."""
        turns = [(self.around[turn.role], turn.content) for turn in conversation]
        return "".join(before + words + behind for (before, behind), words in turns) + self.opening

    def go(self) -> str:
        """The same as a Go template over `.Messages`."""
        branches = [
            f'{{{{ {"if" if not place else "else if"} eq .Role "{role}" }}}}{before}{{{{ .Content }}}}{behind}'
            for place, (role, (before, behind)) in enumerate(self.around.items())
        ]
        return "{{- range .Messages }}" + "".join(branches) + "{{ end }}{{ end }}" + self.opening


def _same(before: str, behind: str, names: Sequence[str] = _ROLES) -> dict[str, tuple[str, str]]:
    return {role: (before.format(name), behind) for role, name in zip(_ROLES, names, strict=True)}


KNOWN = (
    Turns("chatml", _same("<|im_start|>{}\n", "<|im_end|>\n"), "<|im_start|>assistant\n"),
    Turns(
        "llama3",
        _same("<|start_header_id|>{}<|end_header_id|>\n\n", "<|eot_id|>"),
        "<|start_header_id|>assistant<|end_header_id|>\n\n",
    ),
    Turns("zephyr", _same("<|{}|>\n", "</s>\n"), "<|assistant|>\n"),
    Turns(
        "gemma",
        {
            "user": ("<start_of_turn>user\n", "<end_of_turn>\n"),
            "assistant": ("<start_of_turn>model\n", "<end_of_turn>\n"),
        },
        "<start_of_turn>model\n",
    ),
    Turns("mistral", {"user": ("[INST] ", " [/INST]"), "assistant": (" ", "</s>")}, ""),
    Turns("phi3", _same("<|{}|>\n", "<|end|>\n"), "<|assistant|>\n"),
    Turns("plain", {"system": ("", "\n\n"), "user": ("", ""), "assistant": (" ", "\n\n")}, ""),
)
"""Families whose template Ollama is told by name."""


def recognise(renderer: Renderer) -> tuple[Turns, str | None] | None:
    """The family that writes turns as this template does, and a system turn that the template adds by itself."""
    tokenizer = renderer.tokenizer
    try:
        written = [render(tokenizer, renderer.template, each, generation=True) for each in _PROBES]
    except DataError:  # it wants turns of another kind
        return None
    bos = str(tokenizer.bos_token or "")
    for texts in (written, [text.removeprefix(bos) for text in written]):  # a BOS may also be how a turn begins
        for turns in KNOWN:
            if [turns.rendered(each) for each in _PROBES] == texts:
                return turns, None
            system = _own_system(turns, texts)
            if system is not None:
                return turns, system
    return None


def _own_system(turns: Turns, written: Sequence[str]) -> str | None:
    """The system turn that stands before every conversation, when there is one and all else is as in the family."""
    if "system" not in turns.around:
        return None
    before, behind = turns.around["system"]
    first = turns.rendered(_PROBES[0])
    if not before or not written[0].startswith(before) or not written[0].endswith(behind + first):
        return None
    system = written[0][len(before) : -len(behind + first)]
    added = [turns.rendered((Message("system", system), *each)) for each in _PROBES]
    return system if added == list(written) else None


def modelfile(file: str, renderer: Renderer) -> str:
    """The text of the Modelfile.

    Args:
        file: name of the GGUF file, in the same folder.
        renderer: tokenizer, template, system turn and worked turns of the run.
    """
    found = recognise(renderer)
    lines = [f"FROM ./{file}"]
    if found is None:
        lines.append("# Turns are written by the chat template in the GGUF file.")
    else:
        lines.append(f"TEMPLATE {_quoted(found[0].go())}")
    lines += [f"PARAMETER stop {_quoted(each)}" for each in _stop_texts(renderer)]
    fixed = renderer.conversation(())
    system = fixed[0].content if fixed and fixed[0].role == "system" else found and found[1]
    if system:
        lines.append(f"SYSTEM {_quoted(system)}")
    lines += [f"MESSAGE {turn.role} {_quoted(turn.content)}" for turn in fixed if turn.role != "system"]
    return "\n".join(lines) + "\n"


def _stop_texts(renderer: Renderer) -> list[str]:
    return [str(renderer.tokenizer.convert_ids_to_tokens(each)) for each in renderer.stop_ids]


def _quoted(text: str) -> str:
    """As Ollama reads it: three quotes around; inside, they cannot be written."""
    return '"""' + text.replace('"""', '"" "') + '"""'
