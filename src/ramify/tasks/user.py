"""A user's own task: loaded from a Python file, and guarded so that its faults are told in one line."""

from __future__ import annotations

import importlib.util
import sys
import traceback
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from ramify.base.errors import RamifyError, TaskError
from ramify.base.types import Problem, Reason, Sample, Verdict
from ramify.tasks.task import Split, Task

_ATTRIBUTES = ("name", "fewshot", "system")
_METHODS = ("problems", "grade", "completion")


@dataclass(frozen=True, slots=True)
class GuardedTask:
    """A task whose own code may fail: a failing grader is the reason `error`, any other failure a `TaskError`.

    Attributes:
        inner: the user's object.
        path: the file it came from.
    """

    inner: Task
    path: Path

    @property
    def name(self) -> str:
        """As the user named it."""
        return self.inner.name

    @property
    def fewshot(self) -> str | None:
        """The user's choice."""
        return self.inner.fewshot

    @property
    def system(self) -> str | None:
        """The user's choice."""
        return self.inner.system

    def problems(self, split: Split, n: int | None = None) -> list[Problem]:
        """The user's problems.

        Raises:
            TaskError: the user's code failed, or returned something else; names file and line.
        """
        try:
            found: Any = list(self.inner.problems(split, n))
        except (Exception, SystemExit) as error:
            raise self._error("problems", error) from error
        for each in found:
            if not isinstance(each, Problem):
                raise TaskError(f"{self.path}: problems must return Problem objects, not {type(each).__name__}")
        return list(found)

    def grade(self, problem: Problem, sample: Sample) -> Verdict:
        """The user's verdict; when the grader raises, the reason is `error`, which every rate leaves out.

        Raises:
            TaskError: the grader returned something that is not a verdict.
        """
        try:
            verdict: Any = self.inner.grade(problem, sample)
        except RamifyError:
            raise
        except (Exception, SystemExit) as error:  # `exit()` in a grader must not end the run
            note = f"{type(error).__name__}: {error}"[:200]
            return Verdict(problem.id, sample.index, 0.0, Reason.ERROR, None, (note,))
        if not isinstance(verdict, Verdict):
            raise TaskError(f"{self.path}: grade must return a Verdict, not {type(verdict).__name__}")
        return verdict

    def completion(self, problem: Problem) -> str:
        """The user's completion.

        Raises:
            TaskError: the user's code failed, or returned something else; names file and line.
        """
        try:
            text: Any = self.inner.completion(problem)
        except (Exception, SystemExit) as error:
            raise self._error("completion", error) from error
        if not isinstance(text, str):
            raise TaskError(f"{self.path}: completion must return a text, not {type(text).__name__}")
        return text

    def _error(self, method: str, error: BaseException) -> RamifyError:
        return (
            error
            if isinstance(error, RamifyError)
            else TaskError(f"{_where(error, self.path)}: {method}: {_line(error)}")
        )


def load_task_file(path: Path) -> GuardedTask:
    """The object `task` of a Python file.

    Raises:
        TaskError: no such file, it cannot be executed (names the line), or its `task` is missing or incomplete.
    """
    if not path.is_file():
        raise TaskError(f"{path}: no such file", hint="it must define `task`")
    module = _execute(path)
    task = getattr(module, "task", None)
    if task is None:
        raise TaskError(f"{path}: defines no `task`", hint="end the file with: task = MyTask()")
    if isinstance(task, type):
        raise TaskError(f"{path}: `task` is the class {task.__name__}", hint=f"write: task = {task.__name__}()")
    missing = [name for name in _ATTRIBUTES if not hasattr(task, name)]
    missing += [f"{name}()" for name in _METHODS if not callable(getattr(task, name, None))]
    if missing:
        needed = ", ".join([*_ATTRIBUTES, *(f"{name}()" for name in _METHODS)])
        raise TaskError(f"{path}: `task` lacks {', '.join(missing)}", hint=f"a task has {needed}")
    return GuardedTask(task, path)


def _execute(path: Path) -> ModuleType:
    name = f"ramify_task_{path.stem}"
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise TaskError(f"{path}: cannot be imported")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses look their module up while it is being executed
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:
        del sys.modules[name]
        raise TaskError(f"{_where(error, path)}: {_line(error)}") from error
    return module


def _where(error: BaseException, path: Path) -> str:
    """`file:line` of the last place in the user's file."""
    if isinstance(error, SyntaxError) and error.filename == str(path):
        return f"{path}:{error.lineno}"
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(path)]
    return f"{path}:{lines[-1]}" if lines else str(path)


def _line(error: BaseException) -> str:
    text = error.msg if isinstance(error, SyntaxError) else str(error)
    return f"{type(error).__name__}: {' '.join(text.split())[:300]}"
