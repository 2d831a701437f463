"""The only place that prints errors: one line, a hint, and an exit code."""

from __future__ import annotations

import errno
import os
import sys
import traceback
from collections.abc import Callable
from typing import Any

import typer
from typer.core import TyperGroup

from ramify.base.errors import RamifyError, RunError, Terminated, TrainingError

OK, FAILED, BAD_INPUT, INTERRUPTED, TERMINATED = 0, 1, 2, 130, 143

_INTERRUPTED_HINTS = {
    "train": "the last checkpoint is kept; the same command with --resume goes on from it",
    "sample": "the samples drawn so far are kept; the same command with --resume goes on",
    "generate": "the completions finished so far are kept; the same command with --resume goes on",
    "eval": "the samples drawn so far are kept; the same command goes on with them",
    "compare": "the samples drawn so far are kept; the same command goes on with them",
    "judge": "the replies so far are kept; the same command goes on with them",
    "sweep": "finished runs are kept, stopped ones have their checkpoint; the same command goes on with them",
    "demo": "finished stages are kept; the same command goes on with the next one",
}


class StoppedError(Exception):
    """Carries an interrupt past typer, which would make a bare exit code of it.

    Attributes:
        interrupt: what says where the command stopped.
    """

    def __init__(self, interrupt: KeyboardInterrupt) -> None:
        super().__init__(str(interrupt))
        self.interrupt = interrupt


class Commands(TyperGroup):
    """The commands of `ramify`; what an interrupt says is kept."""

    def invoke(self, ctx: Any) -> Any:
        """Run the command.

        Raises:
            StoppedError: Ctrl-C or SIGTERM.
        """
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt as interrupt:
            raise StoppedError(interrupt) from None


def report(command: Callable[[], object]) -> int:
    """Run a command; print whatever it raises as one `error:` line with a hint.

    `RAMIFY_DEBUG=1` prints the traceback as well.

    Returns:
        the exit code: 0 done, 1 a run failed, 2 bad input or settings, 130 interrupted, 143 ended by SIGTERM.
    """
    try:
        result = command()
        sys.stdout.flush()
        return result if isinstance(result, int) and result != INTERRUPTED else _finish(result)
    except (KeyboardInterrupt, typer.Abort) as error:
        return _explain(error)
    except StoppedError as carrier:
        return _explain(carrier.interrupt)
    except BrokenPipeError as error:
        return _explain(error)
    except Exception as error:
        return _explain(error)


def _finish(result: object) -> int:
    return _explain(KeyboardInterrupt()) if result == INTERRUPTED else OK


def _explain(error: BaseException) -> int:
    """Print what happened on standard error; the exit code that goes with it."""
    if os.environ.get("RAMIFY_DEBUG"):
        traceback.print_exception(error)
    if isinstance(error, BrokenPipeError):  # `| head` closed standard output: nothing went wrong
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILED
    from ramify.console import neutral  # a message may quote a model's template, or a file's name

    message, hint, code = describe(error)
    message, hint = neutral(message), neutral(hint or "")
    print(message if code in (INTERRUPTED, TERMINATED) else f"error: {message}", file=sys.stderr)
    if hint:
        print(f"hint: {hint}", file=sys.stderr)
    return code


def describe(error: BaseException) -> tuple[str, str | None, int]:
    """Message (one line), hint and exit code of an exception."""
    if isinstance(error, RamifyError):
        code = FAILED if isinstance(error, RunError | TrainingError) else BAD_INPUT
        return _one_line(error.message), error.hint, code
    if isinstance(error, KeyboardInterrupt | typer.Abort):
        ended, code = ("terminated", TERMINATED) if isinstance(error, Terminated) else ("interrupted", INTERRUPTED)
        return _one_line(str(error)) or ended, _how_to_go_on(), code
    if hasattr(error, "format_message"):  # typer's own: an unknown command or option, a missing argument
        return _one_line(str(error.format_message())), f"see `{_command_path(error)} --help`", BAD_INPUT
    if _is_out_of_memory(error):
        return "out of memory", "lower train.micro_tokens or sample.live; neither changes a result", FAILED
    if isinstance(error, OSError) and error.errno == errno.ENOSPC:
        return (
            f"no space left on the disk: {error.filename or 'while writing'}",
            "free some space, then --resume",
            FAILED,
        )
    text = f"unexpected {type(error).__name__}: {error}"
    return _one_line(text), "RAMIFY_DEBUG=1 shows where; please report it", FAILED


def _one_line(text: str) -> str:
    return " ".join(text.split())


def _is_out_of_memory(error: BaseException) -> bool:
    """Whether Python, CUDA or the CPU allocator had no memory left (torch raises a RuntimeError for the last)."""
    text = str(error)
    return (
        isinstance(error, MemoryError)
        or type(error).__name__ == "OutOfMemoryError"
        or (isinstance(error, RuntimeError) and ("can't allocate memory" in text or "not enough memory" in text))
    )


def _how_to_go_on() -> str | None:
    command = _command()
    if command == "generate" and not any(each.partition("=")[0] == "--out" for each in sys.argv):
        return "nothing is kept; with --out FILE finished completions are, and --resume goes on"
    return _INTERRUPTED_HINTS.get(command)


def _command() -> str:
    names = [argument for argument in sys.argv[1:] if not argument.startswith("-")]
    return names[0] if names else ""


def _command_path(error: BaseException) -> str:
    context = getattr(error, "ctx", None)
    return str(context.command_path) if context is not None else "ramify"
