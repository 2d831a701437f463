"""Chat templates: which there are, what they need of a tokenizer, and one line when they cannot be used."""

from __future__ import annotations

from pathlib import Path

import pytest

from ramify.base.config import Prompting
from ramify.base.errors import ConfigError
from ramify.base.types import Message
from ramify.prompts.renderer import Renderer
from ramify.prompts.templates import find_template, lead_in, missing_tokens, render, turn_end
from tests.tiny_tokenizers import CHATML_TOKENS, LLAMA3_TOKENS, byte_level, metaspace

ASK = (Message("user", "Hi"),)


def test_a_base_model_without_template_gets_the_choices() -> None:
    with pytest.raises(ConfigError, match=r"no chat template.*chatml, llama3, plain or a Jinja file \(hint: "):
        Renderer(byte_level())


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, r"'.*template.jinja' is neither a file nor one of model, chatml, llama3, plain"),
        ("", r"template.jinja: the chat template is empty"),
        ("a\n{% for m in messages %}{{ m.content }", r"template.jinja:2: not a Jinja template: "),
        (b"\xff\xfe", r"template.jinja: cannot be read"),
    ],
)
def test_a_file_that_is_no_template_gets_one_line(tmp_path: Path, content: str | bytes | None, message: str) -> None:
    path = tmp_path / "template.jinja"
    if content is not None:
        path.write_bytes(content.encode() if isinstance(content, str) else content)
    with pytest.raises(ConfigError, match=message) as caught:
        Renderer(byte_level(), Prompting(chat_template=str(path)))
    assert "\n" not in str(caught.value)


def test_a_misspelled_name_gets_the_nearest() -> None:
    with pytest.raises(ConfigError, match="did you mean 'chatml'"):
        Renderer(byte_level(), Prompting(chat_template="chatlm"))


def test_a_file_renders_as_it_says(tmp_path: Path) -> None:
    path = tmp_path / "template.jinja"
    path.write_text("{% for m in messages %}[{{ m.role }}]{{ m.content }}</s>{% endfor %}[assistant]")
    tokenizer = byte_level(bos=True)
    renderer = Renderer(tokenizer, Prompting(chat_template=str(path)))
    assert renderer.text(ASK) == "[user]Hi</s>[assistant]"
    assert renderer.stop_id == tokenizer.eos_token_id
    assert tokenizer.bos_token_id not in renderer.prompt_ids(ASK)


@pytest.mark.parametrize(("name", "tokens"), [("chatml", CHATML_TOKENS), ("llama3", LLAMA3_TOKENS)])
def test_missing_tokens_are_listed_and_end_the_turn_once_added(name: str, tokens: tuple[str, ...]) -> None:
    tokenizer = byte_level(bos=True)
    assert missing_tokens(tokenizer, name) == tokens
    assert turn_end(tokenizer, find_template(name, tokenizer)) == tokens[-1]
    with pytest.raises(ConfigError, match=r"needs tokens that the tokenizer lacks: <\|"):
        Renderer(tokenizer, Prompting(chat_template=name))
    tokenizer.add_special_tokens({"additional_special_tokens": list(tokens)})
    assert missing_tokens(tokenizer, name) == ()
    renderer = Renderer(tokenizer, Prompting(chat_template=name))
    assert renderer.stop_id == tokenizer.convert_tokens_to_ids(tokens[-1])
    assert set(tokenizer.convert_tokens_to_ids(list(tokens))) <= {
        *renderer.prompt_ids(ASK),
        *renderer.completion_ids(ASK, "a"),
    }


@pytest.mark.parametrize("name", ["model", "plain"])
def test_the_models_own_and_the_plain_form_need_no_tokens(name: str) -> None:
    tokenizer = byte_level(template="{{ messages[0].content }}<|not_a_token|>")
    assert missing_tokens(tokenizer, name) == ()


def test_tokens_of_a_file_are_found_by_rendering_not_by_reading(tmp_path: Path) -> None:
    path = tmp_path / "template.jinja"
    path.write_text(
        "{% if tools %}<|tool|>{% endif %}{% for m in messages %}{{ '<|' + m.role + '|>' }}{{ m.content }}<end_of_turn>"
        "{% endfor %}{% if add_generation_prompt %}<|assistant|>{% endif %}"
    )
    tokenizer = metaspace()
    assert missing_tokens(tokenizer, str(path)) == ("<|user|>", "<end_of_turn>", "<|assistant|>")
    assert turn_end(tokenizer, find_template(str(path), tokenizer)) == "<end_of_turn>"


def test_white_space_before_the_answer_belongs_to_the_completion() -> None:
    inst = (
        "{% for m in messages %}{{ '[I]' + m.content + '[/I]' if m.role == 'user' else ' ' + m.content }}{% endfor %}"
    )
    tokenizer = byte_level(template=inst)
    assert lead_in(tokenizer, find_template("model", tokenizer)) == " "
    renderer = Renderer(tokenizer)
    assert renderer.completion_ids(ASK, "Paris") == renderer.completion_ids(ASK, " Paris")
    assert tokenizer.decode(renderer.completion_ids(ASK, "Paris")[:-1]) == " Paris"


@pytest.mark.parametrize("name", ["chatml", "llama3"])
def test_our_templates_as_they_are_published(name: str) -> None:
    tokenizer = byte_level(tokens=CHATML_TOKENS + LLAMA3_TOKENS)
    text = render(tokenizer, find_template(name, tokenizer), (Message("system", "S"), *ASK), generation=True)
    assert (
        text
        == {
            "chatml": "<|im_start|>system\nS<|im_end|>\n<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n",
            "llama3": "<|start_header_id|>system<|end_header_id|>\n\nS<|eot_id|>"
            "<|start_header_id|>user<|end_header_id|>\n\nHi<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n",
        }[name]
    )


def test_a_broken_template_of_the_models_own_is_one_line() -> None:
    with pytest.raises(ConfigError, match="chat template model, line 1: "):
        Renderer(byte_level(template="{% for m in %}"))
