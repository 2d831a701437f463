"""Which matrix products really ran: floating-point operations of a block of code, by the type they were computed in."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping
from itertools import pairwise
from typing import Any

from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

# Which two arguments of an operator are multiplied.
_FACTORS = {"mm": (0, 1), "bmm": (0, 1), "addmm": (1, 2), "baddbmm": (1, 2), "addbmm": (1, 2)}


class Products(TorchDispatchMode):
    """Counts the matrix products inside its block; attention kernels are counted apart, as calls.

    Attributes:
        operations: multiply-adds times two, by type name (`float32`, `bfloat16`).
        attention_calls: calls of fused attention kernels, by type name.
    """

    def __init__(self) -> None:
        super().__init__()
        self.operations: dict[str, float] = defaultdict(float)
        self.attention_calls: dict[str, int] = defaultdict(int)

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        name = func.overloadpacket.__name__
        factors = _FACTORS.get(name.removesuffix("_"))
        if factors is not None:
            left, right = args[factors[0]], args[factors[1]]
            self.operations[_kind(left)] += 2.0 * left.numel() * right.shape[-1]
        elif "scaled_dot_product" in name:
            self.attention_calls[_kind(args[0])] += 1
        return func(*args, **(kwargs or {}))

    def summary(self) -> dict[str, Any]:
        """Operations and attention calls, JSON-ready."""
        return {"operations": dict(self.operations), "attention_calls": dict(self.attention_calls)}


class StepWatch:
    """Time stamps at the end of each step; the last step is run under `Products` and is not timed.

    Call `done(step)` after each step (1-based), and once with 0 before the first.
    """

    def __init__(self, total: int, clock: Callable[[], float], cpu_clock: Callable[[], float]) -> None:
        self.total = total
        self.losses: list[float] = []
        self.products = Products()
        self._clocks = (clock, cpu_clock)
        self._stamps: list[tuple[float, float]] = []

    def done(self, step: int) -> None:
        """A step has ended."""
        if step < self.total:
            self._stamps.append((self._clocks[0](), self._clocks[1]()))
        if step == self.total - 1:
            self.products.__enter__()
        elif step == self.total:
            self.products.__exit__(None, None, None)

    @property
    def seconds(self) -> list[float]:
        """Wall-clock time of each timed step."""
        return [after[0] - before[0] for before, after in pairwise(self._stamps)]

    @property
    def cpu_seconds(self) -> list[float]:
        """Processor time of each timed step, all threads together."""
        return [after[1] - before[1] for before, after in pairwise(self._stamps)]


def _kind(tensor: Tensor) -> str:
    return str(tensor.dtype).removeprefix("torch.")
