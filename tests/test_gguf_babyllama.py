"""A trained Llama of 0.9 M parameters, from llama2.c's file to GGUF: it writes the same story in llama.cpp.

The file is version 0 of llama2.c: seven int32 (width, inner width, layers, heads, key heads, vocabulary, longest
sequence), then all weights in fp32. Its queries and keys are in Meta's order (pairs of neighbours turn), those of
Transformers in halves. The vocabulary is 105 single letters.
"""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig, LlamaForCausalLM

from ramify.export.gguf.writer import write_gguf
from ramify.prompts.templates import encode
from ramify.sample.llamacpp.runtime import open_runtime
from tests.gguf_setup import different, without_stop
from tests.gguf_tokenizers import wrapped_letters

PROMPT = "Once upon a time"
LENGTH = 220


class Weights:
    """Reads one tensor after the other."""

    def __init__(self, path: Path) -> None:
        self.sizes = [int(each) for each in np.fromfile(path, dtype="<i4", count=7)]
        self._rest: NDArray[np.float32] = np.fromfile(path, dtype="<f4", offset=28)

    def take(self, *shape: int) -> torch.Tensor:
        count = int(np.prod(shape))
        found, self._rest = self._rest[:count], self._rest[count:]
        return torch.from_numpy(found.reshape(shape).copy())

    @property
    def left(self) -> int:
        return len(self._rest)


def in_halves(weight: torch.Tensor, heads: int) -> torch.Tensor:
    """Rows of a query or key matrix from Meta's order to Transformers', [heads x head, width]."""
    rows, width = weight.shape
    return weight.view(heads, rows // heads // 2, 2, width).transpose(1, 2).reshape(rows, width)


def network(path: Path) -> Any:
    """The model of a llama2.c file in Transformers."""
    file = Weights(path)
    width, inner, layers, heads, key_heads, vocabulary, longest = file.sizes
    keys = width // heads * key_heads
    named: dict[str, torch.Tensor] = {"model.embed_tokens.weight": file.take(vocabulary, width)}
    parts = {
        "input_layernorm": (width,),
        "self_attn.q_proj": (width, width),
        "self_attn.k_proj": (keys, width),
        "self_attn.v_proj": (keys, width),
        "self_attn.o_proj": (width, width),
        "post_attention_layernorm": (width,),
        "mlp.gate_proj": (inner, width),
        "mlp.down_proj": (width, inner),
        "mlp.up_proj": (inner, width),
    }
    turned = {"self_attn.q_proj": heads, "self_attn.k_proj": key_heads}
    for part, shape in parts.items():
        for layer, weight in enumerate(file.take(layers, *shape)):
            own = in_halves(weight, turned[part]) if part in turned else weight
            named[f"model.layers.{layer}.{part}.weight"] = own
    named["model.norm.weight"] = file.take(width)
    file.take(2, longest, width // heads // 2)  # sines and cosines
    assert file.left == 0
    config = LlamaConfig(
        vocab_size=vocabulary,
        hidden_size=width,
        intermediate_size=inner,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=key_heads,
        max_position_embeddings=longest,
        rms_norm_eps=1e-5,
        tie_word_embeddings=True,
        bos_token_id=1,
        eos_token_id=2,
    )
    model = LlamaForCausalLM(config)
    model.load_state_dict(named | {"lm_head.weight": named["model.embed_tokens.weight"]})
    return model.eval()


@pytest.fixture(scope="module")
def story(shared: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[int], int]:
    """The model as a Transformers folder, the story it writes there greedily, and how much of it is prompt."""
    source = shared / "models" / "babyllama_tok105"
    if not source.is_dir():
        pytest.skip("no BabyLlama there")
    folder = tmp_path_factory.mktemp("babyllama")
    network(source / "model5000.bin").save_pretrained(str(folder))
    lines = (source / "tok105.vocab").read_text(encoding="utf-8").rstrip("\n").split("\n")
    wrapped_letters([line.rsplit("\t", 1)[0] for line in lines], bos=True).save_pretrained(str(folder))
    tokenizer = AutoTokenizer.from_pretrained(str(folder))
    prompt = list(encode(tokenizer, PROMPT, special=True))
    model = AutoModelForCausalLM.from_pretrained(str(folder))
    with torch.inference_mode():
        ids = model.generate(torch.tensor([prompt]), do_sample=False, max_new_tokens=LENGTH - len(prompt))
    return folder, ids[0].tolist(), len(prompt)


def test_it_tells_a_story(story: tuple[Path, list[int], int]) -> None:
    folder, ids, _ = story
    text = AutoTokenizer.from_pretrained(str(folder)).decode(ids, skip_special_tokens=True)
    assert text.startswith(PROMPT + ", there was a ")
    assert text.count(". ") > 2


@pytest.mark.parametrize("kind", ["f32", "f16"])
def test_llama_cpp_writes_the_same_story(story: tuple[Path, list[int], int], tmp_path: Path, kind: str) -> None:
    """Greedy text is the same where, behind each of its beginnings, the most likely token is the next one."""
    folder, ids, begun = story
    write_gguf(folder, tmp_path / "story.gguf", kind)
    tokenizer = AutoTokenizer.from_pretrained(str(folder))
    with closing(open_runtime(tmp_path / "story.gguf", kv="f32")) as runtime:
        assert runtime.add_bos
        assert [runtime.bos_id, *runtime.tokenize(PROMPT)] == ids[:begun]
        chosen = runtime.logits(ids[:-1]).argmax(-1).tolist()
        written = b"".join(runtime.piece(each) for each in chosen[begun - 1 :]).decode()
    assert chosen[begun - 1 :] == ids[begun:]
    assert len(chosen) == LENGTH - 1
    assert written == tokenizer.decode(ids[begun:])


def test_letters_that_it_does_not_know_are_unknown_and_end_nothing(
    story: tuple[Path, list[int], int], tmp_path: Path
) -> None:
    folder, _, _ = story
    write_gguf(folder, tmp_path / "story.gguf", "f32")
    tokenizer = AutoTokenizer.from_pretrained(str(folder))
    with closing(open_runtime(tmp_path / "story.gguf")) as runtime:
        texts = ["\n\nOnce", "東京 a 🚀🚀 b", " a  b ", "\u00a0é", "</s>a", "", "Tim's “hat”"]
        assert different(tokenizer, runtime, texts) == []
        assert runtime.stop_ids == (2,)


def test_dropping_its_stop_token_shows(story: tuple[Path, list[int], int], tmp_path: Path) -> None:
    folder, _, _ = story
    write_gguf(folder, tmp_path / "story.gguf", "f32")
    broken = without_stop(tmp_path / "story.gguf", tmp_path / "broken.gguf", 2)
    with closing(open_runtime(broken)) as runtime:
        assert 2 not in runtime.stop_ids
