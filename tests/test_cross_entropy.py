"""The chunked cross entropy equals the plain one: values and gradients, in every type, with any chunk size."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from ramify.base.errors import ConfigError
from ramify.model import cross_entropy, rates
from ramify.model.cross_entropy import token_logprobs_from_hidden, weighted_nll_from_hidden

HIDDEN, VOCABULARY, ROWS = 24, 97, 13
LEAVES = ("hidden", "weight", "bias")


@pytest.fixture
def table() -> tuple[Tensor, Tensor]:
    """Rows out of order, two rows with two targets, one row without."""
    rows = torch.tensor([3, 0, 1, 2, 4, 4, 12, 6, 7, 8, 9, 10, 11, 6])
    return rows, torch.randint(0, VOCABULARY, rows.shape, generator=torch.Generator().manual_seed(1))


@pytest.fixture(params=["one chunk", "chunks of two rows"])
def chunking(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    if request.param != "one chunk":
        monkeypatch.setitem(cross_entropy._CHUNK_BYTES, "cpu", 2 * VOCABULARY * 4)
        monkeypatch.setitem(cross_entropy._KEEP_BYTES, "cpu", 0)
        monkeypatch.setattr(cross_entropy, "_BLOCK", 40)
    yield request.param


def leaves(dtype: torch.dtype, needs: tuple[str, ...] = LEAVES) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(0)
    shapes = {"hidden": (ROWS, HIDDEN), "weight": (VOCABULARY, HIDDEN), "bias": (VOCABULARY,)}
    made = {name: torch.randn(*shape, generator=generator).to(dtype) for name, shape in shapes.items()}
    return {name: each.requires_grad_(name in needs) for name, each in made.items()}


def plain(given: dict[str, Tensor], table: tuple[Tensor, Tensor], softcap: float | None, scale: float) -> Tensor:
    logits = (given["hidden"] @ given["weight"].t() + given["bias"]) * scale
    if softcap is not None:
        logits = softcap * torch.tanh(logits / softcap)
    return torch.log_softmax(logits, dim=-1)[table]


def gradients(loss: Tensor, given: dict[str, Tensor]) -> dict[str, Tensor]:
    wanted = [each for each in given.values() if each.requires_grad]
    names = [name for name, each in given.items() if each.requires_grad]
    return dict(zip(names, torch.autograd.grad(loss, wanted), strict=True))


def assert_close(found: dict[str, Tensor], expected: dict[str, Tensor], share: float) -> None:
    assert found.keys() == expected.keys()
    for name, gradient in found.items():
        error = (gradient.double() - expected[name].double()).abs().max() / expected[name].abs().max()
        assert error <= share, f"{name}: {error:.2e}"


@pytest.mark.parametrize(("softcap", "scale"), [(None, 1.0), (None, 0.25), (5.0, 1.0), (3.0, 0.5)])
@pytest.mark.parametrize("needs", [LEAVES, ("hidden",), ("weight",)])
def test_logprobs_and_gradients_equal_the_plain_ones(
    table: tuple[Tensor, Tensor], chunking: str, needs: tuple[str, ...], softcap: float | None, scale: float
) -> None:
    upstream = torch.randn(table[0].shape, generator=torch.Generator().manual_seed(2))
    given, exact = leaves(torch.float32, needs), leaves(torch.float64, needs)
    found = token_logprobs_from_hidden(
        given["hidden"], given["weight"], given["bias"], *table, softcap=softcap, scale=scale
    )
    expected = plain(exact, table, softcap, scale)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found.double(), expected, rtol=0, atol=2e-5)
    assert_close(gradients(found @ upstream, given), gradients(expected @ upstream.double(), exact), 1e-5)


class Products(TorchDispatchMode):
    """Counts matrix products."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.count += "mm" in func.overloadpacket.__name__
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("softcap", [None, 4.0])
def test_a_frozen_head_is_multiplied_by_once_each_way_and_may_be_asked_again(
    table: tuple[Tensor, Tensor], chunking: str, softcap: float | None
) -> None:
    """The backward pass has no product with it, and does not use up what it needs: two upstreams, one graph."""
    given = leaves(torch.float32, ("hidden",))
    with Products() as forward:
        found = token_logprobs_from_hidden(given["hidden"], given["weight"], given["bias"], *table, softcap=softcap)
    n_chunks = 1 if chunking == "one chunk" else -(-ROWS // 2)
    assert forward.count == 2 * n_chunks
    exact = leaves(torch.float64, ("hidden",))
    expected = plain(exact, table, softcap, 1.0)
    for seed in (4, 5):
        upstream = torch.randn(table[0].shape, generator=torch.Generator().manual_seed(seed))
        with Products() as backward:
            [gradient] = torch.autograd.grad(found, given["hidden"], upstream, retain_graph=True)
        assert backward.count == 0
        [right] = torch.autograd.grad(expected, exact["hidden"], upstream.double(), retain_graph=True)
        assert_close({"hidden": gradient}, {"hidden": right}, 1e-5)


@pytest.mark.parametrize("softcap", [None, 4.0])
def test_weighted_nll_and_gradients_equal_the_plain_ones(
    table: tuple[Tensor, Tensor], chunking: str, softcap: float | None
) -> None:
    weights = torch.linspace(-0.5, 1.5, table[0].shape[0])
    given, exact = leaves(torch.float32), leaves(torch.float64)
    found = weighted_nll_from_hidden(
        given["hidden"], given["weight"], given["bias"], *table, weights, 7.0, softcap=softcap, scale=0.5
    )
    expected = -(plain(exact, table, softcap, 0.5) @ weights.double()) / 7.0
    torch.testing.assert_close(found.double(), expected, rtol=1e-6, atol=1e-6)
    assert_close(gradients(found * 3, given), gradients(expected * 3, exact), 1e-5)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("is_native", [True, False])
@pytest.mark.parametrize("needs", [LEAVES, ("hidden",)])
def test_half_precision_is_no_worse_than_the_plain_path(
    table: tuple[Tensor, Tensor], chunking: str, dtype: torch.dtype, is_native: bool, needs: tuple[str, ...]
) -> None:
    def error(found: dict[str, Tensor], exact: dict[str, Tensor]) -> float:
        pairs = [(found[name].double(), exact[name]) for name in needs]
        return max(float((one - other).norm() / other.norm()) for one, other in pairs)

    upstream = torch.linspace(0.2, 1.0, table[0].shape[0])
    given = leaves(dtype, needs)
    exact = {name: each.detach().double().requires_grad_(name in needs) for name, each in given.items()}
    expected = gradients(plain(exact, table, None, 1.0) @ upstream.double(), exact)
    rough = gradients(plain(given, table, None, 1.0).float() @ upstream, given)
    with rates.assume_native(dtype) if is_native else rates.assume_native():
        found = token_logprobs_from_hidden(given["hidden"], given["weight"], given["bias"], *table)
        fine = gradients(found @ upstream, given)
        loss = weighted_nll_from_hidden(given["hidden"], given["weight"], given["bias"], *table, upstream, 1.0)
        direct = gradients(-loss, given)
    assert all(each.dtype == dtype for each in fine.values())
    assert error(fine, expected) <= 1.2 * error(rough, expected)
    assert error(direct, expected) <= 1.2 * error(rough, expected)
    if not is_native:
        assert error(fine, expected) < 3e-3


def test_small_shares_of_the_loss_survive_fp16(table: tuple[Tensor, Tensor]) -> None:
    given = leaves(torch.float16, ("hidden",))
    weights = torch.ones(table[0].shape)
    loss = weighted_nll_from_hidden(given["hidden"], given["weight"], None, *table, weights, 1e6)
    scaled = gradients(loss * 2.0**20, given)["hidden"]
    exact = {name: each.detach().double().requires_grad_(name == "hidden") for name, each in given.items()}
    exact["bias"] = exact["bias"].detach() * 0
    expected = gradients(-plain(exact, table, None, 1.0).sum() / 1e6 * 2.0**20, exact)["hidden"]
    assert (scaled.double() - expected).norm() / expected.norm() < 1e-2


def test_extreme_logits_stay_finite(chunking: str) -> None:
    hidden = torch.full((3, 2), 1e4).requires_grad_()
    weight = torch.tensor([[1.0, 0.0], [-1.0, 0.0], [1.0, 1e-4]])
    rows, ids = torch.tensor([0, 1, 2]), torch.tensor([0, 1, 2])
    found = token_logprobs_from_hidden(hidden, weight, None, rows, ids)
    expected = torch.log_softmax(hidden.double() @ weight.double().t(), dim=-1)[rows, ids]
    torch.testing.assert_close(found.double(), expected, rtol=1e-6, atol=1e-3)
    assert torch.autograd.grad(found.sum(), hidden)[0].isfinite().all()


def test_the_gradient_can_be_asked_for_twice(table: tuple[Tensor, Tensor]) -> None:
    given = leaves(torch.float32)
    loss = token_logprobs_from_hidden(given["hidden"], given["weight"], given["bias"], *table).square().sum()
    first = torch.autograd.grad(loss, list(given.values()), retain_graph=True)
    second = torch.autograd.grad(loss, list(given.values()))
    for one, other in zip(first, second, strict=True):
        torch.testing.assert_close(one, other)


def test_no_gradient_is_computed_when_none_is_asked_for(table: tuple[Tensor, Tensor]) -> None:
    given = leaves(torch.float32)
    weights = torch.ones(table[0].shape)
    with torch.no_grad():
        silent = weighted_nll_from_hidden(given["hidden"], given["weight"], given["bias"], *table, weights, 2.0)
        logprobs = token_logprobs_from_hidden(given["hidden"], given["weight"], given["bias"], *table)
    assert not silent.requires_grad and not logprobs.requires_grad
    torch.testing.assert_close(silent, -logprobs.sum() / 2)


def test_no_targets_give_an_empty_result_and_a_zero_gradient() -> None:
    hidden, weight = torch.randn(4, 3).requires_grad_(), torch.randn(5, 3)
    empty = torch.empty(0, dtype=torch.int64)
    found = token_logprobs_from_hidden(hidden, weight, None, empty, empty)
    assert found.shape == (0,)
    assert torch.autograd.grad(found.sum(), hidden)[0].abs().max() == 0


def test_measured_rates_are_cached_and_positive() -> None:
    rates_found = rates.product_rates()
    assert rates_found.keys() == {"fp32", "bf16", "fp16"} and min(rates_found.values()) > 0
    assert rates.product_rates() is rates_found
    assert rates.native(torch.float32)


@pytest.mark.parametrize("tick", [1e-9, 1 / 64], ids=["fine", "coarse"])
def test_rates_are_measured_with_any_clock(tick: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """A clock of 15.6 ms ticks, as on Windows, tells the types apart as a fine one does, in less than half a second."""
    costs = {torch.float32: 0.0007, torch.bfloat16: 0.004, torch.float16: 0.0003}
    now = 0.003

    def clock() -> float:
        nonlocal now
        now += 2e-6
        return int(now / tick) * tick

    def product(left: Tensor, right: Tensor, out: Tensor) -> None:
        nonlocal now
        now += costs[left.dtype]

    monkeypatch.setattr(rates.time, "thread_time", clock)
    monkeypatch.setattr(rates.torch, "mm", product)
    found = rates.product_rates.__wrapped__()
    monkeypatch.undo()
    assert now < 0.45
    for name, kind in {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}.items():
        assert found[name] == pytest.approx(2e-9 * 64 * 512 * 512 / costs[kind], rel=0.15)


def test_which_types_are_native_can_be_forced(monkeypatch: pytest.MonkeyPatch) -> None:
    weight = torch.zeros(1, dtype=torch.bfloat16)
    with rates.assume_native(torch.bfloat16):
        assert rates.product_dtype(weight) == torch.bfloat16
        assert rates.fastest_dtype(torch.device("cpu")) == torch.bfloat16
    with rates.assume_native():
        assert rates.product_dtype(weight) == torch.float32
        assert rates.fastest_dtype(torch.device("cpu")) == torch.float32
    monkeypatch.setenv("RAMIFY_NATIVE", "bf16")
    assert rates.native(torch.bfloat16) and not rates.native(torch.float16)
    monkeypatch.setenv("RAMIFY_NATIVE", "none")
    assert not rates.native(torch.bfloat16)
    monkeypatch.setenv("RAMIFY_NATIVE", "int8")
    with pytest.raises(ConfigError, match="int8"):
        rates.native(torch.bfloat16)
