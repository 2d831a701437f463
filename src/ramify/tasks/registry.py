"""Tasks by name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from ramify.base import config
from ramify.base.errors import TaskError, unknown
from ramify.tasks.chat.task import Chat
from ramify.tasks.grading import Grading
from ramify.tasks.math import Math
from ramify.tasks.task import Task
from ramify.tasks.unit_conversion import UnitConversion
from ramify.tasks.user import load_task_file

_MADE_BY: Mapping[str, Callable[[config.Task], Task]] = {
    "unit_conversion": UnitConversion.from_settings,
    "math": Math.from_settings,
    "grading": Grading.from_settings,
    "chat": Chat.from_settings,
}
TASKS = tuple(_MADE_BY)


def load_task(settings: config.Task) -> Task:
    """A task by name, or from a user's Python file that defines `task`.

    Raises:
        TaskError: no such task or file, or the file is broken; names file and line.
    """
    if settings.name in _MADE_BY:
        return _MADE_BY[settings.name](settings)
    if not settings.name.endswith(".py"):
        raise TaskError(unknown("task", settings.name, TASKS), hint="a task of your own is a .py file defining `task`")
    return load_task_file(Path(settings.name))
