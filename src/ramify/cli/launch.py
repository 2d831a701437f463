"""The commands that start a training in several processes, on one machine or on more."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass

from ramify.base.errors import ConfigError

_PORT = 29500
"""Where the machines meet unless something else listens there."""


@dataclass(frozen=True, slots=True)
class Layout:
    """Processes on each machine, one a GPU, and machines.

    Raises:
        ConfigError: there are none of one of them.
    """

    processes: int
    nodes: int = 1

    def __post_init__(self) -> None:
        for name, value in (("--processes", self.processes), ("--nodes", self.nodes)):
            if value < 1:
                raise ConfigError(f"{name} {value}: at least 1 is needed")

    @property
    def size(self) -> int:
        """Processes on all machines."""
        return self.processes * self.nodes


def launch_lines(arguments: Sequence[str], layout: Layout) -> list[str]:
    """What to type, with comments: the same run through `accelerate launch` and through `torchrun`.

    Both start `python -m ramify ARGUMENTS` once a process and tell each its number; the run's own settings decide
    everything else, so mixed precision and the like are not the launcher's business.

    Args:
        arguments: of `ramify`.
    """
    command = shlex.join(["-m", "ramify", *arguments])
    several = f"{layout.processes} process{'' if layout.processes == 1 else 'es'}"
    if layout.nodes == 1:
        told = [f"# {several} on this machine, one a GPU; one of the two:"]
    else:
        told = [
            f"# {several} on each of {layout.nodes} machines; one of the two, on every machine.",
            f"# HOST is the first machine's name or address, MACHINE this machine's number, 0 to {layout.nodes - 1}:",
        ]
    return [*told, f"{_accelerate(layout)} {command}", f"{_torchrun(layout)} {command}"]


def _accelerate(layout: Layout) -> str:
    # On one machine without GPUs, too, --multi_gpu starts that many processes; --cpu would start one.
    several = ["--multi_gpu"] if layout.size > 1 else []
    words = ["accelerate", "launch", *several, f"--num_processes={layout.size}", f"--num_machines={layout.nodes}"]
    if layout.nodes > 1:
        words += ["--machine_rank=$MACHINE", "--main_process_ip=$HOST", f"--main_process_port={_PORT}"]
    return " ".join([*words, "--mixed_precision=no", "--dynamo_backend=no"])


def _torchrun(layout: Layout) -> str:
    words = ["torchrun", f"--nproc-per-node={layout.processes}"]
    if layout.nodes == 1:
        return " ".join([*words, "--standalone"])
    meeting = ["--rdzv-backend=c10d", f"--rdzv-endpoint=$HOST:{_PORT}", "--rdzv-id=ramify"]
    return " ".join([*words, f"--nnodes={layout.nodes}", *meeting])
