"""Ramify: the whole fine-tuning path of a small language model, with every prompt computed once.

    import ramify

    model = ramify.load("nano")
    model.generate("How many grams are in 6 kg?")
    run = ramify.train(model, "train.jsonl", method="sft", lora=ramify.LoRA(r=16, alpha=32))
    ramify.evaluate(run, task="unit_conversion").accuracy

Names are loaded when they are first used, so that `import ramify` is instant. See `ramify.api`.
"""

from __future__ import annotations

import sys
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable
    from inspect import Signature

    from ramify.api import Model, TrainedRun, evaluate, load, train
    from ramify.base.config import LoRA, RunConfig
    from ramify.base.errors import RamifyError
    from ramify.evaluate.run import Evaluation

__all__ = ["Evaluation", "LoRA", "Model", "RamifyError", "RunConfig", "TrainedRun", "evaluate", "load", "train"]

_HOME = {
    "Evaluation": "ramify.evaluate.run",
    "LoRA": "ramify.base.config",
    "Model": "ramify.api",
    "RamifyError": "ramify.base.errors",
    "RunConfig": "ramify.base.config",
    "TrainedRun": "ramify.api",
    "load": "ramify.api",
}


class _CallablePackage(ModuleType):
    """A package that, when it is called, is the function of `ramify.api` with its name; its help is that function's."""

    def __call__(self, *arguments: Any, **settings: Any) -> Any:
        return self._function(*arguments, **settings)

    @property
    def _function(self) -> Callable[..., Any]:
        found: Callable[..., Any] = getattr(import_module("ramify.api"), self.__name__.rpartition(".")[2])
        return found

    @property
    def __signature__(self) -> Signature:
        from inspect import signature  # slow to import

        return signature(self._function)

    @property
    def __doc__(self) -> str | None:
        from inspect import getdoc

        return f"{self._function.__name__}{self.__signature__}\n\n{getdoc(self._function)}"

    @__doc__.setter
    def __doc__(self, text: str | None) -> None:
        self.__dict__["__doc__"] = text


class _Ramify(ModuleType):
    """This module. `train` and `evaluate` are packages in it and functions of its interface: they are both."""

    def __setattr__(self, name: str, value: object) -> None:
        if name in ("train", "evaluate") and isinstance(value, ModuleType):
            value.__class__ = _CallablePackage
        super().__setattr__(name, value)


def __getattr__(name: str) -> Any:
    if name == "__version__":
        return import_module("importlib.metadata").version("ramify")
    if name in ("train", "evaluate"):
        return import_module(f"ramify.{name}")
    if name not in _HOME:
        raise AttributeError(f"module 'ramify' has no attribute {name!r}")
    return getattr(import_module(_HOME[name]), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__, "__version__"])


sys.modules[__name__].__class__ = _Ramify
