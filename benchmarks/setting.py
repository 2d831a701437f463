"""What the benchmarks share: model shapes with random weights, what this machine can do, sides that take turns.

Each side of a comparison runs in a fresh process of its own and prints one JSON line. The sides alternate round by
round, so that a busy moment of the machine hits all of them; medians and ranges are reported.
"""

from __future__ import annotations

import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any

MARK = "RESULT "
LIMIT = 1800.0  # seconds that one process of a side may take
PACKAGES = ("ramify", "torch", "transformers", "trl", "peft", "accelerate", "numpy")
VOCABULARY = 49152
_LLAMA = {
    "vocab_size": VOCABULARY,
    "max_position_embeddings": 8192,
    "rms_norm_eps": 1e-5,
    "tie_word_embeddings": True,
    "bos_token_id": 0,
    "eos_token_id": 0,
    "rope_parameters": {"rope_type": "default", "rope_theta": 100000.0},
}
SHAPES: dict[str, dict[str, Any]] = {
    "135M": {
        **_LLAMA,
        "hidden_size": 576,
        "intermediate_size": 1536,
        "num_hidden_layers": 30,
        "num_attention_heads": 9,
        "num_key_value_heads": 3,
    },
    "360M": {
        **_LLAMA,
        "hidden_size": 960,
        "intermediate_size": 2560,
        "num_hidden_layers": 32,
        "num_attention_heads": 15,
        "num_key_value_heads": 5,
    },
    "tiny": {  # for trying a benchmark out; its figures mean nothing
        **_LLAMA,
        "hidden_size": 64,
        "intermediate_size": 128,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
    },
}


@dataclass(frozen=True)
class Side:
    """One competitor: its name, and what the child process is told."""

    name: str
    spec: Mapping[str, Any]


@dataclass(frozen=True)
class Spread:
    """Median and range of repeated measurements."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        """Of at least one value."""
        return cls(statistics.median(values), min(values), max(values))

    def __str__(self) -> str:
        return f"{self.median:,.1f} ({self.low:,.1f}-{self.high:,.1f})"


@dataclass
class Report:
    """What a benchmark writes: ratios first, then what they were made of."""

    ratio: dict[str, float] = field(default_factory=dict)
    ours: dict[str, Any] = field(default_factory=dict)
    peers: dict[str, Any] = field(default_factory=dict)
    machine: dict[str, Any] = field(default_factory=dict)
    settings: dict[str, Any] = field(default_factory=dict)

    def write(self, path: Path) -> None:
        """One JSON file."""
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(asdict(self), indent=2) + "\n", encoding="utf-8")


def random_model(shape: str, dtype: str, seed: int = 0) -> Any:
    """A causal language model of a published shape with random weights, the same on every side.

    Args:
        shape: a key of `SHAPES` (the SmolLM2 family's sizes).
        dtype: `fp32` or `bf16`; weights are drawn in fp32 and then cast.
        seed: of the weights.
    """
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(seed)
    network = LlamaForCausalLM(LlamaConfig(**SHAPES[shape]))
    return network.to({"fp32": torch.float32, "bf16": torch.bfloat16}[dtype])


def lora_settings() -> Any:
    """PEFT's settings of the adapter that all sides train: r 16 on all linear layers."""
    from peft import LoraConfig

    names = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
    return LoraConfig(r=16, lora_alpha=32, target_modules=names, task_type="CAUSAL_LM")


def peak_memory() -> int:
    """Largest resident size of this process so far, in bytes (on a GPU: of its allocator)."""
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available() and torch.cuda.max_memory_allocated():
        return int(torch.cuda.max_memory_allocated())
    status = Path("/proc/self/status")
    if status.exists():  # not ru_maxrss, which on Linux starts at the size of the parent
        line = next(each for each in status.read_text().splitlines() if each.startswith("VmHWM"))
        return int(line.split()[1]) * 1024
    if sys.platform == "win32":
        return 0
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # bytes on macOS


def machine() -> dict[str, Any]:
    """Processor, threads and versions."""
    return {
        "cpu": _processor(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "platform": platform.platform(),
        "python": platform.python_version(),
        **{name: metadata.version(name) for name in PACKAGES if _installed(name)},
    }


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor()


def _installed(name: str) -> bool:
    try:
        metadata.version(name)
    except metadata.PackageNotFoundError:
        return False
    return True


def product_rates(shape: str = "135M", seconds: float = 0.3) -> dict[str, dict[str, float]]:
    """GFLOP/s of plain matrix products [rows, hidden] x [hidden, feed-forward] in fp32 and bf16, best of several.

    Returns:
        {"fp32": {"600": …, "1100": …, "4096": …}, "bf16": {…}}, keyed by the number of rows.
    """
    import torch

    hidden, feed_forward = SHAPES[shape]["hidden_size"], SHAPES[shape]["intermediate_size"]
    device = "cuda" if torch.cuda.is_available() else "cpu"
    rates: dict[str, dict[str, float]] = {}
    for name, dtype in (("fp32", torch.float32), ("bf16", torch.bfloat16)):
        weight = torch.randn(feed_forward, hidden, device=device).to(dtype)
        rates[name] = {}
        for rows in (600, 1100, 4096):
            x = torch.randn(rows, hidden, device=device).to(dtype)
            took = _fastest(lambda x=x, weight=weight: torch.nn.functional.linear(x, weight), seconds, device)
            rates[name][str(rows)] = round(2e-9 * rows * hidden * feed_forward / took, 1)
    return rates


def _fastest(work: Callable[[], Any], seconds: float, device: str) -> float:
    import torch

    best, end = float("inf"), time.perf_counter() + seconds
    work()
    while time.perf_counter() < end:
        start = time.perf_counter()
        work()
        if device == "cuda":
            torch.cuda.synchronize()
        best = min(best, time.perf_counter() - start)
    return best


def trl_settings(folder: str, seed: int) -> dict[str, Any]:
    """What all of TRL's trainers are given: rows in the order given, every step logged, nothing saved."""
    import torch

    return {
        "output_dir": folder,
        "lr_scheduler_type": "constant",
        "train_sampling_strategy": "sequential",
        "logging_steps": 1,
        "save_strategy": "no",
        "report_to": "none",
        "disable_tqdm": True,
        "use_cpu": not torch.cuda.is_available(),
        "seed": seed,
    }


def emit(result: Mapping[str, Any]) -> None:
    """What a child process ends with."""
    print(MARK + json.dumps(result), flush=True)


def run_side(module: str, side: Side) -> dict[str, Any]:
    """Run one side in a fresh process: `python -m MODULE --side SPEC`; its `RESULT` line.

    Raises:
        SystemExit: the side failed, or took longer than `LIMIT`; shows the end of what it printed.
    """
    command = [sys.executable, "-m", module, "--side", json.dumps(dict(side.spec))]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=LIMIT)
    except subprocess.TimeoutExpired:
        sys.exit(f"{side.name} took longer than {LIMIT:.0f} seconds")
    lines = [line for line in done.stdout.splitlines() if line.startswith(MARK)]
    if done.returncode != 0 or not lines:
        sys.exit(f"{side.name} failed ({done.returncode}):\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}")
    result: dict[str, Any] = json.loads(lines[-1][len(MARK) :])
    return result


def alternate(
    module: str, sides: Sequence[Side], rounds: int, failed: dict[str, str] | None = None
) -> dict[str, list[dict[str, Any]]]:
    """Every side once a round, in turns; the results of each side, in order.

    Args:
        failed: gets the name of a side that failed or took too long, and why, and that side has no results; None: such
            a side ends the benchmark, as the first one always does.
    """
    results: dict[str, list[dict[str, Any]]] = {side.name: [] for side in sides}
    for number in range(rounds):
        for side in sides if number % 2 == 0 else list(reversed(sides)):
            if side.name not in results:
                continue
            print(f"  round {number + 1} of {rounds}: {side.name} …", file=sys.stderr, flush=True)
            try:
                results[side.name].append(run_side(module, side))
            except SystemExit as error:
                if failed is None or side is sides[0]:
                    raise
                failed[side.name] = str(error)[-600:]
                del results[side.name]
    return results


def show_table(title: str, columns: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """A plain table on standard output; the first column is text, the others are figures."""
    cells = [[str(cell) for cell in row] for row in (columns, *rows)]
    widths = [max(len(row[column]) for row in cells) for column in range(len(columns))]
    print(f"\n{title}")
    for number, row in enumerate(cells):
        line = (row[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True)))
        print("  " + "  ".join(line).rstrip())
        if number == 0:
            print("  " + "  ".join("-" * width for width in widths))
