"""Fields of a body that are not read: which do nothing by specification, and which are refused and why.

A field that is not known is refused by name: a setting that does nothing without a word is worse than an error. null
means the same as leaving a field out.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from ramify.base.errors import unknown
from ramify.serve.http.refusals import RefusedError, seen

UNKNOWN = "unknown_parameter"


@dataclass(frozen=True, slots=True)
class Fields:
    """The fields of one kind of body that are not read.

    Attributes:
        ignored: those that are notes to the server by specification, with the type they must have.
        refused: those that ask for what is not done here: the values that ask for nothing, and the reason.
    """

    ignored: Mapping[str, type]
    refused: Mapping[str, tuple[tuple[Any, ...], str]]

    def checked(self, body: Mapping[str, Any], read: Collection[str]) -> dict[str, Any]:
        """The fields of a body that are read and set.

        Args:
            read: names of the fields that say what is computed.

        Raises:
            RefusedError: a field is unknown (with the nearest name), or asks for what is not done here.
        """
        for name, value in body.items():
            if name in read:
                continue
            if name not in self.ignored and name not in self.refused:
                raise RefusedError(_unknown(name, read), param=name[:60], code=UNKNOWN)
            if value is not None:
                self._check_unread(name, value)
        return {name: value for name, value in body.items() if name in read and value is not None}

    def _check_unread(self, name: str, value: Any) -> None:
        if name in self.ignored:
            if type(value) is not self.ignored[name]:
                kind = {"str": "text", "dict": "an object", "bool": "true or false"}[self.ignored[name].__name__]
                raise RefusedError(f"{name} = {seen(value)}: {kind} is needed", param=name, code="invalid_type")
            return
        neutral, reason = self.refused[name]
        if not any(type(value) is type(each) and value == each for each in neutral):
            raise RefusedError(f"{name} = {seen(value)}: {reason}", param=name, code="unsupported_parameter")


def _unknown(name: str, allowed: Collection[str]) -> str:
    return unknown("field", name if len(name) <= 60 else f"{name[:57]}...", allowed)


_ZERO = (0, 0.0)
_PENALTY = "not done here; repetition_penalty is"
_TOOLS = "tools are not called here"
_EFFORT = "the model thinks as it was trained to; nothing here sets how much"
_IGNORED: Mapping[str, type] = {"user": str}
_REFUSED: Mapping[str, tuple[tuple[Any, ...], str]] = {
    "frequency_penalty": (_ZERO, _PENALTY),
    "presence_penalty": (_ZERO, _PENALTY),
    "logit_bias": (({},), "logits are not biased here"),
}

CHAT = Fields(
    ignored={
        **_IGNORED,
        "metadata": dict,
        "parallel_tool_calls": bool,
        "prompt_cache_key": str,
        "prompt_cache_retention": str,
        "safety_identifier": str,
    },
    refused={
        **_REFUSED,
        "response_format": (({"type": "text"},), "answers are not forced into a format; ask for it in the prompt"),
        "tools": (([],), _TOOLS),
        "tool_choice": (("none", "auto"), _TOOLS),
        "functions": (([],), _TOOLS),
        "function_call": (("none", "auto"), _TOOLS),
        "modalities": ((["text"],), "text is all that is written here"),
        "audio": ((), "text is all that is written here"),
        "store": ((False,), "nothing is stored here"),
        "service_tier": (("auto", "default"), "there is one tier here"),
        "prediction": ((), "predicted outputs are not used here"),
        "reasoning_effort": (("none",), _EFFORT),
        "verbosity": ((), "ask for the length you want in the prompt"),
        "web_search_options": ((), "nothing is searched here"),
    },
)
COMPLETION = Fields(
    ignored=_IGNORED,
    refused={
        **_REFUSED,
        "echo": ((False,), "the prompt is not repeated in the answer, nor are its probabilities computed"),
        "suffix": (("",), "the models here complete what stands before, not what stands between"),
    },
)
