"""What the tests of several processes run: here in one process, and started twice as a launcher does.

launch(["steps", FOLDER, CASE, …], size=2)      python -m rank_program steps FOLDER CASE … in each process
"""

from __future__ import annotations

import errno
import multiprocessing
import os
import signal
import socket
import sys
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch
from safetensors.torch import save_file
from tiny_models import tiny_model
from torch.distributed.tensor import DTensor
from train_setup import Watcher

from ramify.base.config import DPO, LoRA, RunConfig, Train
from ramify.base.config_file import load_config
from ramify.base.progress import NoProgress
from ramify.base.runs import create_run
from ramify.base.types import TokenSequence
from ramify.cli.errors import report
from ramify.cli.main import main as run_command_line
from ramify.model.fused import fuse
from ramify.model.load import LoadedModel
from ramify.model.lora import add_adapter
from ramify.train import dpo, sft
from ramify.train.loop import Job, Loop
from ramify.train.objective import Objective, Supervised
from ramify.train.pairs import PairSet
from ramify.train.preference import Preference
from ramify.train.ranks import Ranks, joined
from ramify.train.reference import compute_references
from ramify.train.sharding import is_sharded, shard, whole_of
from ramify.train.steps import measure_all

UNEVEN = [
    TokenSequence.of(tuple(range(5, 5 + prompt)), tuple(range(60, 60 + completion)))
    for prompt, completion in ((6, 30), (3, 1), (9, 2), (6, 7), (2, 4))
]
"""Five sequences of very different lengths, with common prefixes."""
SETTINGS: dict[str, Any] = {
    "lr": 0.002,
    "batch_size": 5,
    "max_steps": 3,
    "warmup": 1,
    "micro_tokens": 24,
    "dtype": "fp32",
    "tensorboard": False,
    "weight_decay": 0.1,
}


HERE = Path(__file__).resolve().parent
ENVIRONMENT = {"PYTHONPATH": os.pathsep.join([str(HERE.parent), str(HERE)]), "OMP_NUM_THREADS": "1"}


@dataclass(frozen=True)
class Case:
    """A small training: what is trained on, how, and whether layers are sharded when there are several processes."""

    family: str = "llama"
    lora: bool = True
    rows: int = 5
    dpo: bool = False
    sharded: bool = False
    fused: bool = False
    checkpointing: bool = False
    bf16: bool = False


CASES = {
    "sft": Case(),
    "sft, all weights": Case(lora=False),
    "sft, one row": Case(rows=1),
    "sft, fused": Case(fused=True),
    "dpo": Case(dpo=True),
    "dpo, one pair": Case(dpo=True, rows=1),
    "dpo, all weights": Case(dpo=True, lora=False),
    "fsdp sft": Case(sharded=True),
    "fsdp sft, all weights": Case(sharded=True, lora=False),
    "fsdp sft, one row": Case(sharded=True, rows=1),
    "fsdp sft, fused": Case(sharded=True, fused=True),
    "fsdp sft, all weights, recomputed": Case(sharded=True, lora=False, checkpointing=True),
    "fsdp sft, fused, all weights, recomputed": Case(sharded=True, lora=False, fused=True, checkpointing=True),
    "fsdp dpo": Case(sharded=True, dpo=True),
    "fsdp dpo, one pair": Case(sharded=True, dpo=True, rows=1),
    "fsdp gemma2": Case(family="gemma2", sharded=True),
    "fsdp gpt2": Case(family="gpt2", sharded=True),
    "fsdp bf16, all weights": Case(sharded=True, lora=False, bf16=True),
}


def network_of(case: Case) -> Any:
    """The model of a case, ready to be trained."""
    network: Any = tiny_model(case.family)
    if case.bf16:
        network = network.to(torch.bfloat16)
    if case.lora:
        no_tokenizer: Any = None
        loaded = LoadedModel(network, no_tokenizer, "tiny", "tiny", (2,), torch.device("cpu"), torch.float32)
        network = add_adapter(loaded, LoRA(r=4), seed=1).network
    else:
        network.requires_grad_(True)
    if case.checkpointing:
        network.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    if case.fused:
        assert fuse(network)
    return network


def objective_of(case: Case, network: Any, ranks: Ranks) -> Objective:
    """What a case is trained on."""
    sequences = UNEVEN[: case.rows]
    groups = [(index,) for index in range(len(sequences))]
    if not case.dpo:
        return Supervised(sequences, groups)
    pairs = pair_set(sequences)
    references = compute_references(network, pairs, None, 24, NoProgress(), ranks)
    return Preference(pairs, references.train, DPO(sft_weight=0.1))


def pair_set(sequences: Sequence[TokenSequence]) -> PairSet:
    """Each completion against one of half its length, in other tokens."""
    prompts, chosen = [], []
    for each in sequences:
        start = each.weights.index(1.0)
        prompts.append(np.array(each.ids[:start], np.int32))
        chosen.append(np.array(each.ids[start:], np.int32))
    rejected = tuple(ids[: (len(ids) + 1) // 2] - 20 for ids in chosen)
    places = tuple(range(len(sequences)))
    return PairSet(tuple(prompts), places, tuple(chosen), rejected, tuple((place,) for place in places))


def steps(case: Case, folder: Path, ranks: Ranks) -> dict[str, torch.Tensor]:
    """Loss and gradients of the first step, and weights, moments and validation loss after three."""
    network = network_of(case)
    objective = objective_of(case, network, ranks)
    if case.sharded and ranks.size > 1:
        shard(network)
        divided = {name for name, each in network.named_parameters() if isinstance(each, DTensor)}
        assert divided == {name for name, _ in network.named_parameters() if ".layers." in name or ".h." in name}
        assert divided and is_sharded(network)
    run = ranks.from_main(lambda: create_run(folder, RunConfig()))
    settings = Train.model_validate(SETTINGS)
    loop = Loop(Job(network, objective, None, settings, 0, run, lambda path: None, ranks=ranks), None, Watcher())
    first = loop._accumulate()
    found = {"loss": torch.tensor(first.loss), "norm": torch.tensor(first.grad_norm)}
    found |= {
        f"grad/{name}": whole_of(master.grad, loop.optimizer.parameters[name]).clone()
        for name, master in loop.optimizer.masters.items()
        if master.grad is not None
    }
    loop.run()
    found |= {
        f"weight/{name}": whole_of(master.detach(), loop.optimizer.parameters[name]).clone()
        for name, master in loop.optimizer.masters.items()
    }
    found |= loop.optimizer.state()
    valid = measure_all(network, objective, 24, loop.company)
    found |= {"valid": torch.tensor(valid.loss), "tokens": torch.tensor(loop.state.tokens)}
    return found


def train(config: Path, trouble: str, resume: bool) -> int:
    """A whole run from settings in a file, as the command line does it; the exit code."""
    settings = load_config(config)
    watcher = Watcher()
    if trouble.startswith("other:"):
        settings = _other_rows(settings, trouble)
    elif trouble:
        _arrange(trouble)
    code = report(lambda: {"sft": sft.run, "dpo": dpo.run}[settings.method](settings, resume=resume, progress=watcher))
    print(f"notes {watcher.notes} updates {len(watcher.updates)}")
    return code


def _other_rows(settings: RunConfig, trouble: str) -> RunConfig:
    """`other:RANK:FILE`: that process reads another file under the same settings."""
    _, rank, name = trouble.split(":")
    if os.environ["RANK"] != rank:
        return settings
    data = settings.data.model_copy(update={"train": Path(str(settings.data.train)).with_name(name)})
    return settings.model_copy(update={"data": data})


def _arrange(trouble: str) -> None:
    """`HOW:RANK:N`: what happens to that process at its Nth micro-batch of training."""
    how, rank, number = trouble.split(":")
    if os.environ.get("RANK", "0") != rank:
        return
    share, calls = Supervised.share, [0]

    def troubled(self: Supervised, network: Any, indices: Sequence[int], divisor: float) -> Any:
        calls[0] += 1
        if calls[0] == int(number):
            TROUBLES[how](network)
        return share(self, network, indices, divisor)

    mock.patch.object(Supervised, "share", troubled).start()  # to the end of the process


def _full_disk(network: Any) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "tokens.bin")


@torch.no_grad()
def _poison(network: Any) -> None:
    next(iter(network.parameters())).fill_(float("nan"))


TROUBLES: dict[str, Callable[[Any], None]] = {
    "killed": lambda network: os.kill(os.getpid(), signal.SIGKILL),
    "frozen": lambda network: os.kill(os.getpid(), signal.SIGSTOP),
    "terminated": lambda network: os.kill(os.getpid(), signal.SIGTERM),
    "full": _full_disk,
    "poisoned": _poison,
}


@dataclass(frozen=True)
class Ended:
    """How a process ended."""

    code: int | None
    out: str
    err: str


def launch(folder: Path, *arguments: str, size: int = 2, stop_with_first: bool = False) -> list[Ended]:
    """Run `size` processes of this program to their end; what they print goes to files in the folder.

    Args:
        stop_with_first: end all once the first one has ended, as a launcher does.
    """
    port = free_port()
    started = [start(_started, rank, size, port, folder, arguments) for rank in range(size)]
    until = time.monotonic() + 180
    for process in started[:1] if stop_with_first else started:
        process.join(max(0.0, until - time.monotonic()))
    codes = [process.exitcode for process in started]
    for process in started:
        process.kill()
    texts = [[(folder / f"{kind}-{rank}").read_text() for kind in ("out", "err")] for rank in range(size)]
    return [Ended(code, *text) for code, text in zip(codes, texts, strict=True)]


os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")  # as the command line does, before torch is imported
_SERVER = multiprocessing.get_context("forkserver")
_SERVER.set_forkserver_preload(  # what is slow to import: each process is a fork of one that has it
    ["pytest", "ramify.cli.errors", "ramify.train.dpo", "transformers.models.llama.modeling_llama"]
)


def start(target: Callable[..., object], *arguments: object) -> Any:
    """A process of its own, which is a fork of one that has imported everything."""
    process = _SERVER.Process(target=target, args=arguments)
    process.start()
    return process


def command(folder: Path, *arguments: str) -> None:
    """The command line of `ramify`; what it prints goes to files in the folder, as of process 0."""
    _print_to(folder, 0)
    sys.argv = ["ramify", *arguments]
    run_command_line()


def _print_to(folder: Path, rank: int) -> None:
    for number, kind in ((1, "out"), (2, "err")):
        os.dup2(os.open(folder / f"{kind}-{rank}", os.O_WRONLY | os.O_CREAT | os.O_TRUNC), number)


def _started(rank: int, size: int, port: int, folder: Path, arguments: tuple[str, ...]) -> None:
    """One process, told what a launcher tells it."""
    _print_to(folder, rank)
    told = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": size, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    os.environ.update({name: str(value) for name, value in told.items()})
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")  # as the command line does
    sys.exit(main(*arguments))


def free_port() -> int:
    """A port on which nothing listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port


def main(command: str, *arguments: str) -> int:
    """`steps FOLDER CASE…` or `train CONFIG TROUBLE [--resume]`."""
    if command == "train":
        return train(Path(arguments[0]), arguments[1], "--resume" in arguments)
    folder, *names = arguments
    with joined("cpu") as ranks:
        for number, name in enumerate(names):
            found = steps(CASES[name], Path(folder) / f"run-{number}", ranks)
            if ranks.is_main:
                save_file({key: value.contiguous() for key, value in found.items()}, f"{folder}/{name}.safetensors")
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
