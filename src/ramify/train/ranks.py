"""The processes that train together: one alone, or as many as a launcher has started.

`torchrun` and `accelerate launch` start the same command several times and tell each process its number (RANK,
LOCAL_RANK), their number (WORLD_SIZE) and where to meet (MASTER_ADDR, MASTER_PORT). Process 0, the main one, writes the
run folder and speaks; the others are silent.
"""

from __future__ import annotations

import atexit
import logging
import os
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from datetime import timedelta
from typing import Any, NoReturn, Protocol, TypeVar, cast

import torch
import torch.distributed as dist
from torch import Tensor

from ramify.base.errors import ConfigError, RamifyError, Terminated, TrainingError
from ramify.train.attendance import Attendance, Store
from ramify.train.interrupt import ignore_signals, terminable

_log = logging.getLogger("ramify")
_stores: Any = dist  # declared without its stores

T = TypeVar("T")

_WAIT = timedelta(hours=2)
"""How long a process waits for the others (they may be reading data); `Attendance` notices those that are gone."""
_MEET = timedelta(minutes=5)
"""How long the first ones wait for the last one to start."""
_BUCKET = 32 << 20
"""Numbers that are summed in one operation."""
_FOLLOW = 15.0
"""Seconds that a process waits for the main one before it ends after an error: its launcher then ends all others."""
_LOST_TOUCH = re.compile(r"gloo|nccl|connection (was )?(closed|reset|refused)|broken pipe|timed out", re.IGNORECASE)
"""In the messages of operations that another process did not take part in."""
_GO_ON = "the last checkpoint is kept; the same command with --resume goes on from it"


class Ranks(Protocol):
    """The processes of a run, seen from one of them. Everything but `is_main` has to be called by all of them."""

    @property
    def rank(self) -> int:
        """Number of this process, from 0."""

    @property
    def size(self) -> int:
        """How many there are."""

    @property
    def is_main(self) -> bool:
        """Whether this is the one that writes and speaks."""

    def sum_(self, tensors: Sequence[Tensor]) -> None:
        """Replace each tensor by its sum over all processes; the same bits everywhere."""

    def gather(self, value: T) -> list[T]:
        """The values of all processes (small, pickled), in the order of their numbers."""

    def from_main(self, make: Callable[[], T]) -> T:
        """What `make` returns, called by the main process alone."""

    def explained(self) -> AbstractContextManager[None]:
        """Inside the block an error that comes from another process is raised with that process's own reason."""

    def at_loss(self, tell: Callable[[str], None]) -> None:
        """Call `tell` with the reason should this process have to end, because of another one, on the spot."""


class Alone:
    """One process."""

    rank = 0
    size = 1
    is_main = True

    def sum_(self, tensors: Sequence[Tensor]) -> None:
        """They are the sums."""

    def gather(self, value: T) -> list[T]:
        """The one there is."""
        return [value]

    def from_main(self, make: Callable[[], T]) -> T:
        """What `make` returns."""
        return make()

    def explained(self) -> AbstractContextManager[None]:
        """Errors are this process's own."""
        return nullcontext()

    def at_loss(self, tell: Callable[[str], None]) -> None:
        """There is nobody to lose."""


ALONE = Alone()


class Several:
    """One of several processes, all of them connected."""

    def __init__(self, rank: int, size: int, store: Store, host: str) -> None:
        self.rank, self.size = rank, size
        self.is_main = rank == 0
        self._tell: Callable[[str], None] = lambda reason: None
        self._attendance = Attendance(store, rank, size, host, self._end_now)
        self._attendance.start()

    def sum_(self, tensors: Sequence[Tensor]) -> None:
        """In buckets, since every operation costs a round trip."""
        for bucket in _buckets(tensors):
            flat = torch.cat([each.reshape(-1) for each in bucket])
            with _in_touch():
                dist.all_reduce(flat)
            for each, part in zip(bucket, torch.split(flat, [each.numel() for each in bucket]), strict=True):
                each.copy_(part.view_as(each))

    def gather(self, value: T) -> list[T]:
        """Pickled."""
        found: list[Any] = [None] * self.size
        with _in_touch():
            dist.all_gather_object(found, value)
        return cast(list[T], found)

    def from_main(self, make: Callable[[], T]) -> T:
        """Pickled; an error of `make` reaches the others as the reason for which the main process has left."""
        box: list[Any] = [make() if self.is_main else None]
        with _in_touch():
            dist.broadcast_object_list(box, src=0)
        return cast(T, box[0])

    @contextmanager
    def explained(self) -> Iterator[None]:
        """The reason is waited for when contact was lost, and looked for after SIGTERM, which a launcher sends too."""
        try:
            yield
        except BaseException as error:
            patience = _patience(error)
            if patience is None:
                raise
            ignore_signals()
            reason = self._attendance.reason(patience, silence=patience / 2)
            if reason is None and not isinstance(error, _SeparatedError):
                raise
            raise _ElsewhereError(
                reason or f"the processes have lost touch: {_one_line(error)}", hint=_GO_ON
            ) from error

    def at_loss(self, tell: Callable[[str], None]) -> None:
        """Also called where the main process is gone and another one has to write down why."""
        self._tell = tell

    def leave(self, error: BaseException | None) -> None:
        """End this process's part. After an error the others are told, and the main one first of all."""
        if error is None:
            self._attendance.leave()
            return
        ignore_signals()
        own = not isinstance(error, _ElsewhereError | KeyboardInterrupt | SystemExit)
        self._attendance.leave(_one_line(error) if own else "")
        _disconnect()
        if self.is_main:
            self._attendance.wait_for(range(self.size), _FOLLOW / 5)  # the store may end with this process
            return
        if not own and not self._attendance.main_has_spoken:
            self._speak(_one_line(error))
        self._attendance.wait_for([0], _FOLLOW)

    def _speak(self, reason: str) -> None:
        """Once: by the first of those that are left."""
        if self._attendance.is_first_left:
            self._tell(reason)
            _log.error("error: %s", reason)

    def _end_now(self, reason: str) -> NoReturn:
        """From the thread of `Attendance`: the main thread waits for somebody who will not come."""
        try:
            self._speak(reason)
        finally:
            os._exit(1)


class _SeparatedError(TrainingError):
    """Another process did not take part in an operation."""


class _ElsewhereError(TrainingError):
    """Another process is the reason that this one ends."""


@contextmanager
def joined(device: str) -> Iterator[Ranks]:
    """The processes that a launcher started, of which this is one; or this one alone.

    An error, or an interrupt, ends the other processes too. Those that are not the main one end by `SystemExit`, in
    silence: the main one says what happened.

    Args:
        device: the setting train.device.

    Raises:
        ConfigError: the device cannot be that of several processes.
        TrainingError: another process has failed or is gone; says which and why.
    """
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if size == 1:
        yield ALONE
        return
    ranks = connect(device)
    try:
        with terminable(), ranks.explained():
            yield ranks
    except BaseException as error:
        ranks.leave(error)
        if ranks.is_main:
            raise
        raise SystemExit(_exit_code(error)) from None
    ranks.leave(None)


def check_alone(what: str) -> None:
    """Refuse to be one of several processes.

    Raises:
        ConfigError: a launcher started more than one.
    """
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if size > 1:
        raise ConfigError(f"{what} runs in one process, and a launcher started {size}", hint="start it without one")


def connect(device: str) -> Several:
    """Meet the other processes.

    Raises:
        ConfigError: the device cannot be that of several processes, or the launcher has not said where they meet.
        TrainingError: not all of them came.
    """
    missing = [name for name in ("RANK", "MASTER_ADDR", "MASTER_PORT") if name not in os.environ]
    if missing:
        raise ConfigError(
            f"WORLD_SIZE={os.environ['WORLD_SIZE']}, but {', '.join(missing)} is not set",
            hint="start several processes with torchrun or accelerate launch",
        )
    backend = _backend(device, int(os.environ.get("LOCAL_RANK", os.environ["RANK"])))
    try:
        if not dist.is_initialized():
            store, rank, size = _store()
            dist.init_process_group(backend, store=store, rank=rank, world_size=size, timeout=_WAIT)
            atexit.register(_disconnect, at_exit=True)
        store, rank, size = _store()
        launcher = os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True"
        return Several(rank, size, _own(store), "the launcher" if launcher else f"process 0 of {size}")
    except (RuntimeError, ValueError) as error:
        raise TrainingError(f"the processes do not find each other: {_one_line(error)}") from error


_joined = 0


def _own(store: Store) -> Store:
    """Names that no earlier run of these processes has used."""
    global _joined
    _joined += 1
    found: Store = _stores.PrefixStore(f"attendance-{_joined}", store)
    return found


def _store() -> tuple[Any, int, int]:
    """A new connection to the store of the launcher, or of process 0."""
    found: tuple[Any, int, int] = next(iter(_stores.rendezvous("env://", timeout=_MEET)))
    return found


def _backend(device: str, local: int) -> str:
    """How the processes talk; on CUDA each gets the device of its number."""
    kind = device if device != "auto" else "cuda" if torch.cuda.is_available() else "cpu"
    if kind == "cpu":
        return "gloo"
    if kind != "cuda":
        raise ConfigError(f"train.device = {device} is one device; several processes need cpu, cuda or auto")
    if local >= torch.cuda.device_count():
        raise ConfigError(
            f"process {local} of this machine has no GPU of its own: there are {torch.cuda.device_count()}",
            hint="start as many processes as there are GPUs",
        )
    torch.cuda.set_device(local)
    return "nccl"


def _disconnect(at_exit: bool = False) -> None:
    """Close the connections, so that whoever waits for this process learns at once that it will not come."""
    if dist.is_initialized() and (at_exit or dist.get_backend() == "gloo"):
        with suppress(RuntimeError):
            dist.destroy_process_group()


@contextmanager
def _in_touch() -> Iterator[None]:
    try:
        yield
    except RuntimeError as error:
        raise _SeparatedError(_one_line(error)) from error


def _patience(error: BaseException) -> float | None:
    """Seconds to wait for a reason that lies with another process; None: the error is this process's own."""
    if isinstance(error, _SeparatedError):
        return 10.0
    if isinstance(error, Terminated):
        return None if error.args else 5.0  # one with a message was agreed on by all
    if isinstance(error, RamifyError) or not isinstance(error, Exception):
        return None
    return 10.0 if _LOST_TOUCH.search(str(error)) else None


def _exit_code(error: BaseException) -> int:
    return 143 if isinstance(error, Terminated) else 130 if isinstance(error, KeyboardInterrupt) else 1


def _buckets(tensors: Iterable[Tensor]) -> Iterator[list[Tensor]]:
    """Tensors of one type and device, a limited number of entries at a time."""
    bucket: list[Tensor] = []
    entries = 0
    for each in tensors:
        fits = not bucket or (each.dtype, each.device) == (bucket[0].dtype, bucket[0].device)
        if bucket and (not fits or entries + each.numel() > _BUCKET):
            yield bucket
            bucket, entries = [], 0
        bucket.append(each)
        entries += each.numel()
    if bucket:
        yield bucket


def _one_line(error: BaseException) -> str:
    text = error.message if isinstance(error, RamifyError) else f"{type(error).__name__}: {error}"
    return " ".join(text.split())
