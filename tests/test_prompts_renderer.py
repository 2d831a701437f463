"""Conversations to tokens: as the model's own template has it, and the same for training as for generation."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoTokenizer, GenerationConfig

from ramify import nano
from ramify.base.config import Prompting
from ramify.base.errors import ConfigError, DataError
from ramify.base.types import Completion, Conversation, Example, Message
from ramify.prompts.renderer import Renderer
from ramify.prompts.templates import CHATML, LLAMA3
from tests.tiny_tokenizers import CHATML_TOKENS, LLAMA3_TOKENS, byte_level, metaspace

ASK = (Message("user", "How many grams are in 6 kg?"),)
SYSTEM = Message("system", "Be concise.")
CHAT = (SYSTEM, *ASK, Message("assistant", "6000 g."), Message("user", "And in 東京, über 7?"))
ANSWER = "<answer>6000</answer>"

# The shapes of template that models come with, written down for these tests.
TEMPLATES = {
    "chatml": CHATML,
    "llama3": "{{ bos_token }}" + LLAMA3,
    "zephyr": "{% for m in messages %}<|{{ m.role }}|>\n{{ m.content }}{{ eos_token }}\n{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>\n{% endif %}",
    "inst": "{{ bos_token }}{% for m in messages %}{% if m.role == 'assistant' %} {{ m.content }}{{ eos_token }}"
    "{% else %}[INST] {{ m.content }} [/INST]{% endif %}{% endfor %}",
    "bare": "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}"
    "{% if add_generation_prompt %}assistant: {% endif %}",
    "thinking": "{% for m in messages %}<|im_start|>{{ m.role }}\n{% if loop.last and m.role == 'assistant' %}"
    "<think>\n\n</think>\n\n{% endif %}{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}",
}
STOPS = {
    "chatml": "<|im_end|>",
    "llama3": "<|eot_id|>",
    "zephyr": "</s>",
    "inst": "</s>",
    "bare": "</s>",
    "thinking": "<|im_end|>",
}
KINDS = {"byte_level": byte_level, "metaspace": metaspace}


def tokenizer_of(kind: str, template: str, *, bos: bool = False) -> Any:
    return KINDS[kind](bos=bos, tokens=CHATML_TOKENS + LLAMA3_TOKENS, template=TEMPLATES[template])


def reference_ids(tokenizer: Any, conversation: Conversation, *, generation: bool = True) -> tuple[int, ...]:
    turns = [{"role": message.role, "content": message.content} for message in conversation]
    return tuple(tokenizer.apply_chat_template(turns, add_generation_prompt=generation)["input_ids"])


@pytest.mark.parametrize("bos", [False, True])
@pytest.mark.parametrize("template", TEMPLATES)
@pytest.mark.parametrize("kind", KINDS)
def test_the_prompt_is_what_the_models_own_template_gives(kind: str, template: str, bos: bool) -> None:
    tokenizer = tokenizer_of(kind, template, bos=bos)
    renderer = Renderer(tokenizer)
    for prompt in (ASK, CHAT):
        ids = renderer.prompt_ids(prompt)
        assert ids == reference_ids(tokenizer, prompt)
        assert ids.count(tokenizer.bos_token_id) <= 1


@pytest.mark.parametrize("bos", [False, True])
@pytest.mark.parametrize("template", ["plain", "chatml", "inst"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_plain_text_is_tokenised_as_for_pretraining(kind: str, template: str, bos: bool) -> None:
    """As TRL does without a prompt: the tokenizer's own ids of the text and eos, all of them labels."""
    tokenizer = tokenizer_of(kind, "chatml" if template == "plain" else template, bos=bos)
    prompting = Prompting(chat_template="plain" if template == "plain" else "model", system="Be brief.")
    renderer = Renderer(tokenizer, prompting)
    for text in ("How many grams are in 6 kg?", " 東京\n\n", "a 6000</s>"):
        (found,) = renderer.sequences(Example((), (Completion(text, 0.5),)))
        assert found.ids == tuple(tokenizer(text.removesuffix("</s>") + "</s>")["input_ids"])
        assert found.weights == (0.0, *[0.5] * (len(found.ids) - 1))


def test_a_plain_text_that_cannot_be_trained_is_refused() -> None:
    renderer = Renderer(byte_level(), Prompting(chat_template="plain"))
    for text in ("a", "</s>", "a</s>"):
        with pytest.raises(DataError) as caught:
            renderer.sequences(Example((), (Completion(text),), "f:1"))
        assert str(caught.value).startswith("f:1: nothing to train")


def test_texts_written_one_behind_the_other_are_parted_by_eos() -> None:
    tokenizer = byte_level()
    [found] = Renderer(tokenizer, Prompting(chat_template="plain")).sequences(Example((), (Completion("a</s>b"),)))
    assert found.ids == tuple(tokenizer("a</s>b</s>")["input_ids"])
    assert found.weights == (0.0, 1.0, 1.0, 1.0)


@pytest.mark.parametrize("template", TEMPLATES)
@pytest.mark.parametrize("kind", KINDS)
def test_a_completion_ends_in_the_templates_turn_end_once(kind: str, template: str) -> None:
    tokenizer = tokenizer_of(kind, template)
    renderer = Renderer(tokenizer)
    stop = tokenizer.convert_tokens_to_ids(STOPS[template])
    assert renderer.stop_id == stop
    assert set(renderer.stop_ids) == {stop, tokenizer.eos_token_id}
    for text in (ANSWER, ANSWER + STOPS[template]):
        ids = renderer.completion_ids(ASK, text)
        assert ids[-1] == stop and ids.count(stop) == 1
        assert tokenizer.decode(ids[:-1]).strip() == ANSWER


@pytest.mark.parametrize("template", ["chatml", "llama3", "zephyr", "inst"])
@pytest.mark.parametrize("kind", KINDS)
def test_prompt_and_completion_are_the_templates_rendering_of_the_whole(kind: str, template: str) -> None:
    tokenizer = tokenizer_of(kind, template)
    renderer = Renderer(tokenizer)
    joint = renderer.prompt_ids(CHAT) + renderer.completion_ids(CHAT, ANSWER)
    whole = reference_ids(tokenizer, (*CHAT, Message("assistant", ANSWER)), generation=False)
    assert whole[: len(joint)] == joint
    assert renderer.separate_count == 0


TEXT = st.text(st.characters(blacklist_categories=["Cs", "Cc"]), min_size=1, max_size=30).filter(str.strip)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("template", ["model", "plain"])
@settings(max_examples=50)
@given(question=TEXT, text=TEXT)
def test_prompt_ids_come_first_and_what_was_sampled_is_what_is_trained(
    kind: str, template: str, question: str, text: str
) -> None:
    tokenizer = tokenizer_of(kind, "chatml", bos=True)
    renderer = Renderer(tokenizer, Prompting(chat_template=template))
    prompt = (Message("user", question),)
    (sequence,) = renderer.sequences(Example(prompt, (Completion(text),)))
    ids = renderer.prompt_ids(prompt)
    assert sequence.ids[: len(ids)] == ids
    assert set(sequence.weights[: len(ids)]) == {0.0} and set(sequence.weights[len(ids) :]) == {1.0}
    # A model that samples these tokens is trained on exactly these tokens.
    sampled = tokenizer.decode(ids + sequence.ids[len(ids) : -1])[len(tokenizer.decode(ids)) :]
    assert renderer.completion_ids(prompt, sampled) == sequence.ids[len(ids) :]


@pytest.mark.parametrize("kind", KINDS)
def test_the_plain_form_is_question_space_answer_and_eos(kind: str) -> None:
    tokenizer = KINDS[kind]()
    renderer = Renderer(tokenizer, Prompting(chat_template="plain"))
    (sequence,) = renderer.sequences(Example(ASK, (Completion(ANSWER),)))
    joint = tokenizer(f"{ASK[0].content} {ANSWER}", add_special_tokens=False)["input_ids"]
    assert sequence.ids == (*joint, tokenizer.eos_token_id)
    assert renderer.text(ASK) == ASK[0].content
    assert renderer.completion_ids(ASK, " " + ANSWER) == renderer.completion_ids(ASK, ANSWER)


def test_the_plain_form_of_worked_turns() -> None:
    renderer = Renderer(byte_level(), Prompting(chat_template="plain"))
    assert renderer.text(CHAT) == "Be concise.\n\nHow many grams are in 6 kg? 6000 g.\n\nAnd in 東京, über 7?"


@pytest.mark.parametrize("template", ["plain", "chatml", "llama3"])
def test_bos_comes_once_where_the_tokenizer_puts_one(template: str) -> None:
    for bos in (False, True):
        tokenizer = byte_level(bos=bos, tokens=CHATML_TOKENS + LLAMA3_TOKENS)
        ids = Renderer(tokenizer, Prompting(chat_template=template)).prompt_ids(ASK)
        assert ids.count(tokenizer.bos_token_id) == (1 if bos else 0)
        assert (ids[0] == tokenizer.bos_token_id) is bos


def test_a_saved_template_renders_as_the_named_one() -> None:
    for name in ("chatml", "llama3"):
        tokenizer = byte_level(bos=True, tokens=CHATML_TOKENS + LLAMA3_TOKENS)
        named = Renderer(tokenizer, Prompting(chat_template=name))
        expected = named.prompt_ids(CHAT), named.completion_ids(CHAT, ANSWER)
        tokenizer.chat_template = named.template.source
        own = Renderer(tokenizer)
        assert (own.prompt_ids(CHAT), own.completion_ids(CHAT, ANSWER)) == expected
        assert reference_ids(tokenizer, CHAT) == expected[0]


def test_a_completion_that_would_merge_with_the_prompt_is_kept_apart_without_a_word_start(tmp_path: Path) -> None:
    """`Par` + `is` would become the one token `▁Paris`: the completion is the `is` of `Par·is`, not `▁is`."""
    file = tmp_path / "template.jinja"
    file.write_text("{% for m in messages %}{{ m.content }} {% endfor %}{% if add_generation_prompt %}Par{% endif %}")
    tokenizer = metaspace()
    renderer = Renderer(tokenizer, Prompting(chat_template=str(file)))
    prompt = renderer.prompt_ids(ASK)
    joint = tuple(tokenizer(renderer.text(ASK) + "is", add_special_tokens=False)["input_ids"])
    assert joint[: len(prompt)] != prompt
    word_start = tokenizer("is", add_special_tokens=False)["input_ids"]
    ids = renderer.completion_ids(ASK, "is")
    assert tokenizer.convert_ids_to_tokens(word_start)[0].startswith("▁")
    assert "".join(tokenizer.convert_ids_to_tokens(ids)) == "is</s>"
    assert renderer.separate_count == 1
    assert tokenizer.decode(prompt + ids[:-1]).endswith("Paris")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("text", ["Paris", "\nParis", "0 Paris", " Paris", "\n\n0", "00", "ü", "東", "\t1"])
def test_behind_a_prompt_that_ends_in_a_space_every_text_survives(tmp_path: Path, kind: str, text: str) -> None:
    tokenizer = tokenizer_of(kind, "bare")
    renderer = Renderer(tokenizer)
    prompt, ids = renderer.prompt_ids(ASK), renderer.completion_ids(ASK, text)
    assert tokenizer.decode(prompt + ids[:-1]) == tokenizer.decode(prompt) + text


def test_system_turns_ours_theirs_and_the_rows_own() -> None:
    tokenizer = tokenizer_of("byte_level", "chatml")
    plain, ours = Renderer(tokenizer), Renderer(tokenizer, Prompting(system="Speak plainly."))
    assert plain.conversation(ASK) == ASK
    assert ours.conversation(ASK) == (Message("system", "Speak plainly."), *ASK)
    assert ours.conversation(CHAT) == CHAT


def test_worked_turns_stand_between_the_system_turn_and_the_question(tmp_path: Path) -> None:
    file = tmp_path / "worked.yaml"
    file.write_text("system: From the file.\nturns:\n  - {user: Q1, assistant: A1}\n")
    tokenizer = tokenizer_of("byte_level", "chatml")
    worked = (Message("user", "Q1"), Message("assistant", "A1"))
    renderer = Renderer(tokenizer, Prompting(fewshot=file))
    assert renderer.conversation(ASK) == (Message("system", "From the file."), *worked, *ASK)
    assert renderer.conversation(CHAT) == (SYSTEM, *worked, *CHAT[1:])
    given = Renderer(tokenizer, Prompting(fewshot=file, system="Given."))
    assert given.conversation(ASK)[0] == Message("system", "Given.")
    assert given.prompt_ids(ASK) == reference_ids(tokenizer, given.conversation(ASK))


def test_one_sequence_for_each_completion_with_its_weight() -> None:
    renderer = Renderer(tokenizer_of("byte_level", "chatml"))
    example = Example(ASK, (Completion("a"), Completion("b", 0.5), Completion("c", 0.0)))
    prompt = renderer.prompt_ids(ASK)
    sequences = renderer.sequences(example)
    assert [sequence.trained for sequence in sequences] == [2.0, 1.0, 0.0]
    assert all(sequence.ids[: len(prompt)] == prompt for sequence in sequences)


@pytest.mark.parametrize(
    ("completions", "message"),
    [
        ((), "nothing to train: no completion with a weight above 0"),
        ((Completion("a", 0.0),), "nothing to train: no completion with a weight above 0"),
        ((Completion("a"), Completion(" \n")), "nothing to train: the completion is empty"),
        ((Completion("<|im_end|>"),), "nothing to train: the completion is empty"),
        ((Completion("a<|im_end|>b"),), "holds the stop token '<|im_end|>' before its end"),
    ],
)
def test_nothing_to_train_is_an_error_that_names_the_row(completions: tuple[Completion, ...], message: str) -> None:
    renderer = Renderer(tokenizer_of("byte_level", "chatml"))
    with pytest.raises(DataError) as caught:
        renderer.sequences(Example(ASK, completions, "train.jsonl:7"))
    assert str(caught.value).startswith("train.jsonl:7: ")
    assert message in str(caught.value)


def test_an_empty_prompt_is_an_error() -> None:
    renderer = Renderer(byte_level(), Prompting(chat_template="plain"))
    with pytest.raises(DataError, match="the prompt is empty"):
        renderer.prompt_ids((Message("user", ""),))


def test_a_template_that_refuses_a_turn_gives_one_line() -> None:
    template = "{% if messages[0].role == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}hi"
    renderer = Renderer(byte_level(template=template))
    with pytest.raises(DataError, match=r"refuses the turns system, user.*System role not supported.*hint: this model"):
        renderer.prompt_ids((SYSTEM, *ASK))


def test_without_any_stop_token_there_is_no_renderer() -> None:
    tokenizer = byte_level()
    tokenizer.eos_token = None
    with pytest.raises(ConfigError, match="a token that ends a completion"):
        Renderer(tokenizer, Prompting(chat_template="plain"))
    assert Renderer(tokenizer, Prompting(chat_template="plain"), stop_ids=(5,)).stop_id == 5


def test_given_stop_tokens_are_kept_beside_the_templates() -> None:
    tokenizer = tokenizer_of("byte_level", "chatml")
    generation = GenerationConfig(eos_token_id=[2, 7])
    renderer = Renderer(tokenizer, stop_ids=tuple(generation.eos_token_id))
    assert renderer.stop_ids == (tokenizer.convert_tokens_to_ids("<|im_end|>"), 2, 7)


def test_the_tokenizer_is_left_as_it_was() -> None:
    tokenizer = tokenizer_of("byte_level", "zephyr")
    before = (len(tokenizer), tokenizer.chat_template, tokenizer.eos_token)
    Renderer(tokenizer, Prompting(chat_template="chatml")).completion_ids(ASK, ANSWER)
    assert (len(tokenizer), tokenizer.chat_template, tokenizer.eos_token) == before


@pytest.fixture(scope="module")
def smollm2(shared: Path) -> Any:
    folder = shared / "models" / "smollm2_tokenizer"
    if not folder.is_dir():
        pytest.skip("the SmolLM2 tokenizer is not in the shared data")
    return AutoTokenizer.from_pretrained(folder)


def test_smollm2_as_its_own_template_has_it(smollm2: Any) -> None:
    renderer = Renderer(smollm2)
    assert renderer.stop_ids == (smollm2.convert_tokens_to_ids("<|im_end|>"),)
    for prompt in (ASK, CHAT):
        assert renderer.prompt_ids(prompt) == reference_ids(smollm2, prompt)
        joint = renderer.prompt_ids(prompt) + renderer.completion_ids(prompt, ANSWER)
        whole = reference_ids(smollm2, (*prompt, Message("assistant", ANSWER)), generation=False)
        assert whole[:-1] == joint  # behind the turn end the template has a line end, which nothing generates


def test_smollm2s_default_system_turn_gives_way_to_ours(smollm2: Any) -> None:
    assert "named SmolLM" in Renderer(smollm2).text(ASK)
    ours = Renderer(smollm2, Prompting(system="Be concise.")).text(ASK)
    assert "named SmolLM" not in ours and "Be concise." in ours
    assert "SmolLM" not in Renderer(smollm2, Prompting(chat_template="plain")).text(ASK)
    assert "SmolLM" not in Renderer(smollm2, Prompting(chat_template="chatml")).text(ASK)


def test_smollm2s_plain_form_is_the_published_sft_text(smollm2: Any) -> None:
    renderer = Renderer(smollm2, Prompting(chat_template="plain"))
    (sequence,) = renderer.sequences(Example(ASK, (Completion(ANSWER),)))
    text = f"{ASK[0].content} {ANSWER}{smollm2.eos_token}"
    assert sequence.ids == tuple(smollm2(text)["input_ids"])
    assert renderer.separate_count == 0


@pytest.fixture(scope="module")
def nano_tokenizer() -> Any:
    return AutoTokenizer.from_pretrained(str(nano.path()))


def test_nano_as_its_own_template_has_it(nano_tokenizer: Any) -> None:
    renderer = Renderer(nano_tokenizer)
    for prompt in (ASK, CHAT):
        assert renderer.prompt_ids(prompt) == reference_ids(nano_tokenizer, prompt)
        whole = reference_ids(nano_tokenizer, (*prompt, Message("assistant", ANSWER)), generation=False)
        joint = renderer.prompt_ids(prompt) + renderer.completion_ids(prompt, ANSWER)
        assert whole[: len(joint)] == joint
    assert renderer.stop_id in renderer.stop_ids
    assert renderer.separate_count == 0
