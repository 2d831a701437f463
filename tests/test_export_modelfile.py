"""The Modelfile: families recognised by what their template writes, stop tokens, system and worked turns."""

from __future__ import annotations

from pathlib import Path

import pytest
from tiny_tokenizers import byte_level
from transformers import AutoTokenizer

from ramify import nano
from ramify.base.config import Prompting
from ramify.base.types import Message
from ramify.export.modelfile import KNOWN, modelfile, recognise
from ramify.prompts.renderer import Renderer

DEFAULT_SYSTEM = (
    "{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}"
    "{{ '<|im_start|>system\nYou are Bo.<|im_end|>\n' }}{% endif %}"
    "{{'<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n'}}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
GEMMA = (
    "{{ bos_token }}{% for message in messages %}{% set role = 'model' if message['role'] == 'assistant' else 'user' %}"
    "{{ '<start_of_turn>' + role + '\n' + message['content'] | trim + '<end_of_turn>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<start_of_turn>model\n' }}{% endif %}"
)


def nano_renderer(**prompting: str) -> Renderer:
    return Renderer(AutoTokenizer.from_pretrained(str(nano.path())), Prompting(**prompting))


def renderer_with(template: str, *tokens: str) -> Renderer:
    return Renderer(byte_level(bos=True, tokens=tokens, template=template), Prompting())


def test_nano_is_chatml_and_stops_at_the_end_of_a_turn() -> None:
    text = modelfile("nano-Q8_0.gguf", nano_renderer())
    assert text.startswith("FROM ./nano-Q8_0.gguf\n")
    assert '{{ if eq .Role "system" }}<|im_start|>system\n{{ .Content }}<|im_end|>\n' in text
    assert text.count("PARAMETER stop") == 1 and 'PARAMETER stop """<|im_end|>"""' in text
    assert "SYSTEM" not in text and "MESSAGE" not in text


@pytest.mark.parametrize("turns", KNOWN, ids=lambda each: each.name)
def test_the_go_template_has_a_branch_for_each_role_and_ends_where_the_assistant_speaks(turns: object) -> None:
    go = turns.go()
    assert go.count("eq .Role") == len(turns.around)
    assert go.count("{{") == go.count("}}") and go.endswith("{{ end }}{{ end }}" + turns.opening)


def test_a_template_that_adds_a_system_turn_is_told_as_one() -> None:
    found = recognise(renderer_with(DEFAULT_SYSTEM, "<|im_start|>", "<|im_end|>"))
    assert found is not None and (found[0].name, found[1]) == ("chatml", "You are Bo.")
    text = modelfile("m.gguf", renderer_with(DEFAULT_SYSTEM, "<|im_start|>", "<|im_end|>"))
    assert 'SYSTEM """You are Bo."""' in text


def test_gemma_is_recognised_behind_its_bos() -> None:
    found = recognise(renderer_with(GEMMA, "<start_of_turn>", "<end_of_turn>"))
    assert found is not None and found[0].name == "gemma"


def test_an_unknown_template_is_left_to_the_file() -> None:
    odd = "{% for m in messages %}{{ m['role'] + '>> ' + m['content'] + '<|im_end|>' }}{% endfor %}"
    renderer = renderer_with(odd, "<|im_end|>")
    assert recognise(renderer) is None
    assert "TEMPLATE" not in modelfile("m.gguf", renderer)


def test_a_template_that_refuses_the_probes_is_left_to_the_file() -> None:
    refusing = "{% if messages|length > 2 %}{{ raise_exception('too many turns') }}{% endif %}"
    odd = "{% for m in messages %}{{ m['role'] + '>> ' + m['content'] + '<|im_end|>' }}{% endfor %}"
    assert recognise(renderer_with(refusing + odd, "<|im_end|>")) is None


def test_system_and_worked_turns_of_the_run_are_kept(tmp_path: Path) -> None:
    worked = tmp_path / "worked.yaml"
    worked.write_text("system: From the file.\nturns:\n  - {user: 'one?', assistant: '1'}\n", encoding="utf-8")
    text = modelfile("m.gguf", nano_renderer(fewshot=str(worked)))
    assert 'SYSTEM """From the file."""' in text
    assert 'MESSAGE user """one?"""\nMESSAGE assistant """1"""' in text
    assert 'SYSTEM """Own."""' in modelfile("m.gguf", nano_renderer(system="Own.", fewshot=str(worked)))


def test_plain_prompting_is_written_without_roles() -> None:
    renderer = nano_renderer(chat_template="plain")
    found = recognise(renderer)
    assert found is not None and found[0].name == "plain"
    turns = (Message("system", "s"), Message("user", "q"), Message("assistant", "a"), Message("user", "r"))
    assert found[0].rendered(turns) == renderer.text(turns)
