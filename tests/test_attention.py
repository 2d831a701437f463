"""Tree attention: every backend against separate causal attention of each sequence, forward and backward."""

from __future__ import annotations

import logging
import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import pytest
import torch
from tiny_models import tiny_model
from torch import Tensor, nn
from torch.nn.attention.flex_attention import flex_attention
from transformers import AttentionInterface

from ramify.base.errors import ModelError
from ramify.base.types import TokenSequence
from ramify.tree import attention_cpu, attention_cuda
from ramify.tree.attention import ATTENTION, Backend, backend, backend_for, register, tree_attention
from ramify.tree.pack import Batch, pack

HEADS, KEY_HEADS, WIDTH, VALUE_WIDTH = 6, 2, 16, 24
DEVICES = ["cpu", "cuda"] if torch.cuda.is_available() else ["cpu"]
ON_CPU = (torch.float32, "cpu")
BACKENDS: list[tuple[Backend, str]] = [("dense", "cpu"), ("cpu", "cpu")]
if "cuda" in DEVICES:
    BACKENDS += [("dense", "cuda"), ("cpu", "cuda"), ("cuda", "cuda")]


@dataclass(frozen=True)
class Layer:
    """Settings of one attention layer."""

    softcap: float | None = None
    window: int | None = None
    sinks: bool = False


LAYERS = [
    Layer(),
    Layer(softcap=2.0),
    Layer(window=5),
    Layer(window=150),
    Layer(sinks=True),
    Layer(softcap=2.0, window=20, sinks=True),
]


def branching(seed: int, kind: str) -> Batch:
    """Trees of different shapes: bushy and deep, many short roots, long nodes, one token, one path."""
    draw = random.Random(seed)
    shapes = {
        "bushy": [(tuple(draw.choices((0, 1), k=draw.randint(1, 30))), ()) for _ in range(15)],
        "roots": [((draw.randrange(10**6),), tuple(draw.choices(range(9), k=draw.randint(1, 60)))) for _ in range(9)],
        "long": [((7,) * 150, tuple(draw.choices((0, 1), k=draw.randint(60, 110)))) for _ in range(3)],
        "token": [((3,), ())],
        "path": [((3, 4), (5,) * 120)],
    }
    return pack([TokenSequence.of(prompt, rest) for prompt, rest in shapes[kind]])


def tensors(length: int, layer: Layer, dtype: torch.dtype, device: str) -> list[Tensor]:
    """Query, key, value, (sinks), and the gradient of the output."""
    generator = torch.Generator().manual_seed(length)

    def draw(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64).to(device, dtype)

    inputs = [
        draw(1, HEADS, length, WIDTH) * 2,
        draw(1, KEY_HEADS, length, WIDTH) * 2,
        draw(1, KEY_HEADS, length, VALUE_WIDTH),
    ]
    if layer.sinks:
        inputs.append(draw(HEADS))
    return [*(tensor.requires_grad_() for tensor in inputs), draw(1, length, HEADS, VALUE_WIDTH)]


def separately(inputs: list[Tensor], batch: Batch, layer: Layer) -> Tensor:
    """Each row by itself: a softmax over the keys on its own path, found by walking the nodes."""
    query, key, value, *sinks = inputs
    group = HEADS // KEY_HEADS
    out = []
    nodes = batch.layout.nodes
    for index, node in enumerate(nodes):
        path = list(range(node.start, node.stop))
        while nodes[index].parent >= 0:
            index = nodes[index].parent
            path = list(range(nodes[index].start, nodes[index].stop)) + path
        for row in range(node.start, node.stop):
            seen = path[: len(path) - (node.stop - 1 - row)]
            seen = seen[-layer.window :] if layer.window else seen
            keys, values = key[0][:, seen], value[0][:, seen]
            rows = query[0, :, row].view(KEY_HEADS, group, WIDTH)
            scores = rows @ keys.transpose(1, 2) * 0.3
            if layer.softcap:
                scores = layer.softcap * torch.tanh(scores / layer.softcap)
            if sinks:
                scores = torch.cat([scores, sinks[0].view(KEY_HEADS, group, 1)], -1)
            weights = scores.softmax(-1)[..., : len(seen)]
            out.append((weights @ values).reshape(HEADS, VALUE_WIDTH))
    return torch.stack(out)[None]


def run(name: Backend, inputs: list[Tensor], batch: Batch, layer: Layer) -> Tensor:
    """One backend on one layer."""
    query, key, value, *sinks = inputs
    with backend(name):
        return tree_attention(
            query,
            key,
            value,
            batch.layout,
            scaling=0.3,
            softcap=layer.softcap,
            window=layer.window,
            sinks=sinks[0] if sinks else None,
        )


def assert_close(found: Tensor, expected: Tensor, tolerance: float) -> None:
    """Largest difference within `tolerance` of the largest entry (or of 1, where all are tiny)."""
    error = (found.double() - expected.double()).abs().max().item()
    assert error <= tolerance * max(1.0, expected.abs().max().item())


@cache
def reference(kind: str, layer: Layer) -> tuple[Batch, Sequence[Tensor], Tensor, Tensor, Sequence[Tensor]]:
    """Batch, inputs, gradient of the output; the right output and the right gradients of the inputs."""
    batch = branching(1, kind)
    *inputs, grad = tensors(len(batch.input_ids), layer, torch.float64, "cpu")
    out = separately(inputs, batch, layer)
    return batch, inputs, grad, out.detach(), torch.autograd.grad(out, inputs, grad)


@pytest.mark.parametrize(("name", "device"), BACKENDS)
@pytest.mark.parametrize("layer", LAYERS, ids=str)
@pytest.mark.parametrize("kind", ["bushy", "roots", "long", "token", "path"])
def test_equals_separate_attention(name: Backend, device: str, kind: str, layer: Layer) -> None:
    """Output and gradients in fp64, where rounding cannot hide or excuse anything (fp32 where Flex has no fp64)."""
    dtype, tolerance = (torch.float32, 2e-4) if name == "cuda" else (torch.float64, 1e-12)
    batch, inputs, grad, expected, expected_grads = reference(kind, layer)
    moved = [tensor.detach().to(device, dtype).requires_grad_() for tensor in inputs]
    found = run(name, moved, batch.to(device), layer)
    grads = torch.autograd.grad(found, moved, grad.to(device, dtype))
    assert_close(found.cpu(), expected, tolerance)
    for one, other in zip(grads, expected_grads, strict=True):
        assert_close(one.cpu(), other, tolerance)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_low_precision_inputs_lose_only_their_own_rounding(dtype: torch.dtype) -> None:
    """The CPU backend computes in fp32: only the inputs and the results are rounded."""
    tolerance = {torch.float32: 2e-6, torch.bfloat16: 2e-2, torch.float16: 2e-3}[dtype]
    batch = branching(2, "bushy")
    *inputs, grad = tensors(len(batch.input_ids), Layer(), dtype, "cpu")
    exact = [tensor.detach().double().requires_grad_() for tensor in inputs]
    expected = run("dense", exact, batch, Layer())
    found = run("cpu", inputs, batch, Layer())
    assert found.dtype == dtype
    assert_close(found, expected, tolerance)
    for one, other in zip(
        torch.autograd.grad(found, inputs, grad), torch.autograd.grad(expected, exact, grad.double()), strict=True
    ):
        assert one.dtype == dtype
        assert_close(one, other, tolerance)


@pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile")
@pytest.mark.parametrize("layer", LAYERS, ids=str)
def test_flex_form_of_the_cuda_backend_equals_dense(layer: Layer) -> None:
    """The GPU module uncompiled, on any device, forward only (FlexAttention has no CPU backward)."""
    batch = branching(3, "long")
    inputs = tensors(len(batch.input_ids), layer, torch.float32, "cpu")[:-1]
    with torch.no_grad():
        assert_close(run("cuda", inputs, batch, layer), run("dense", inputs, batch, layer), 1e-5)


# What follows turns the GPU's code into C++; the tests above hold the same code to the same numbers uncompiled.


@pytest.mark.proof
@pytest.mark.usefixtures("compiler")
@pytest.mark.parametrize("layer", [Layer(), Layer(softcap=2.0, window=20)], ids=str)
def test_flex_form_of_the_cuda_backend_compiles(layer: Layer, monkeypatch: pytest.MonkeyPatch) -> None:
    """Mask and cap through the compiler that this machine has, forward only, at one length.

    Under dynamic shapes PyTorch's template for CPUs confuses the sizes of what a mask captures.
    """
    flex = torch.compile(flex_attention, dynamic=False)

    def without_aux(*args: Tensor, return_aux: object, **settings: Any) -> tuple[Tensor, None]:
        return flex(*args, **settings), None  # a log-sum-exp is not among what is compiled for CPUs

    monkeypatch.setattr(attention_cuda, "_flex", lambda device: without_aux)
    batch = branching(3, "long")
    inputs = tensors(len(batch.input_ids), layer, torch.float32, "cpu")[:-1]
    inputs[2] = inputs[1].detach().clone()  # nor are values of another width than keys
    with torch.no_grad():
        assert_close(run("cuda", inputs, batch, layer), run("dense", inputs, batch, layer), 1e-5)


@pytest.mark.proof
@pytest.mark.usefixtures("compiler")
@pytest.mark.parametrize("softcap", [None, 50.0, 3.0])
def test_caps_compile_for_any_length(softcap: float | None) -> None:
    """Dynamic shapes, as on a GPU: a captured number would become a symbol that FlexAttention cannot compile."""
    flex = torch.compile(flex_attention, dynamic=True)
    for length in (256, 384):
        query = torch.randn(1, 2, length, 32, generator=torch.Generator().manual_seed(length))
        scores = query @ query.transpose(2, 3) * 32**-0.5
        expected = (scores if softcap is None else softcap * torch.tanh(scores / softcap)).softmax(-1) @ query
        with torch.no_grad():
            assert_close(flex(query, query, query, score_mod=attention_cuda._cap(softcap)), expected, 1e-5)


def test_a_gpu_without_a_compiler_computes_tiles(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """No Triton, or heads below 16: the tile backend on any device, said once."""
    monkeypatch.setattr(attention_cuda, "has_triton", lambda: True)
    assert backend_for("cuda", 64, 64) == "cuda"
    assert backend_for("cpu", 64, 64) == backend_for("mps", 64, 64) == "cpu"
    with caplog.at_level(logging.WARNING, "ramify"):
        assert backend_for("cuda", 8, 64) == "cpu"
        monkeypatch.setattr(attention_cuda, "has_triton", lambda: False)
        assert backend_for("cuda", 80, 80) == backend_for("cuda", 80, 80) == "cpu"
    assert [record.message.split(" (")[0] for record in caplog.records] == [
        "FlexAttention cannot be compiled here for heads of 8",
        "FlexAttention cannot be compiled here for heads of 80",
    ]


def test_tiles_lie_where_the_tensors_do() -> None:
    """Every tensor that the tile backend makes is on the device of its inputs: `meta` refuses any other."""
    batch = branching(3, "long").to("meta")
    cpu = branching(3, "long").layout
    batch.layout._plans["tiles", 20] = tuple(
        replace(tile, mask=tile.mask.to("meta")) for tile in attention_cpu._plan(cpu, 20)
    )
    layer = Layer(softcap=2.0, window=20, sinks=True)
    *inputs, grad = [tensor.detach().to("meta").requires_grad_() for tensor in tensors(len(cpu), layer, *ON_CPU)]
    grads = torch.autograd.grad(run("cpu", inputs, batch, layer), inputs, grad.detach())
    assert all(each.device.type == "meta" for each in grads)


def test_many_heads_are_computed_in_parts() -> None:
    """More scores than are held at once: heads go through the same tile one after another."""
    batch = branching(4, "long")
    length = len(batch.input_ids)
    generator = torch.Generator().manual_seed(0)
    query, key, value = (torch.randn(1, heads, length, 4, generator=generator) for heads in (48, 24, 24))
    with backend("cpu"):
        found = tree_attention(query, key, value, batch.layout, scaling=0.5)
    with backend("dense"):
        assert_close(found, tree_attention(query, key, value, batch.layout, scaling=0.5), 1e-5)


def test_several_rows_of_one_layout() -> None:
    """A batch dimension: each row as if alone."""
    batch = branching(4, "bushy")
    generator = torch.Generator().manual_seed(0)
    query, key, value = (torch.randn(3, n, len(batch.input_ids), 4, generator=generator) for n in (4, 2, 2))
    with backend("cpu"):
        found = tree_attention(query, key, value, batch.layout, scaling=0.5)
    with backend("dense"):
        assert_close(found, tree_attention(query, key, value, batch.layout, scaling=0.5), 1e-5)


def test_extreme_scores_stay_finite() -> None:
    """Scores in the thousands neither overflow nor lose the row's largest key."""
    batch = branching(5, "bushy")
    *inputs, grad = tensors(len(batch.input_ids), Layer(), torch.float32, "cpu")
    inputs = [(tensor.detach() * 20).requires_grad_() for tensor in inputs]
    found = run("cpu", inputs, batch, Layer())
    exact = run("dense", [tensor.detach().double() for tensor in inputs], batch, Layer())
    assert_close(found, exact, 2e-3)  # fp32 scores of 5000 are right to 5e-4
    assert all(gradient.isfinite().all() for gradient in torch.autograd.grad(found, inputs, grad))


def test_plans_are_made_once() -> None:
    """All layers of a model share the plan; a window that hides nothing shares the plan without one."""
    batch = branching(6, "path")
    inputs = tensors(len(batch.input_ids), Layer(), torch.float32, "cpu")[:-1]
    for window in (None, 1000, 122):
        run("cpu", inputs, batch, Layer(window=window))
    assert len(batch.layout._plans) == 1
    run("cpu", inputs, batch, Layer(window=121))
    assert len(batch.layout._plans) == 2


def test_without_a_layout_the_model_computes_what_it_always_did() -> None:
    """Registered twice, and used for an ordinary padded batch: logits as with sdpa."""
    register()
    register()
    network = tiny_model("llama")
    ids = torch.tensor([[0, 0, 5, 6, 7], [8, 9, 10, 11, 12]])
    padding = (torch.arange(5) >= torch.tensor([[2], [0]])).long()
    expected = network(input_ids=ids, attention_mask=padding).logits
    network.set_attn_implementation(ATTENTION)
    found = network(input_ids=ids, attention_mask=padding).logits
    assert_close(found[padding.bool()], expected[padding.bool()], 1e-5)


def test_what_cannot_be_exact_is_refused() -> None:
    """Attention dropout, looking ahead and position biases are errors, not approximations."""
    register()
    forward = AttentionInterface()[ATTENTION]
    batch = branching(7, "path")
    query, key, value = tensors(len(batch.input_ids), Layer(), torch.float32, "cpu")[:3]
    module = nn.Module()
    with pytest.raises(ModelError, match=r"dropout is 0\.1"):
        forward(module, query, key, value, None, dropout=0.1, tree_layout=batch.layout)
    with pytest.raises(ModelError, match="looks ahead"):
        forward(module, query, key, value, None, is_causal=False, tree_layout=batch.layout)
    with pytest.raises(ModelError, match="position bias"):
        forward(module, query, key, value, None, position_bias=query, tree_layout=batch.layout)
