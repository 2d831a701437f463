"""Few-shot prompts are data: a YAML file of worked turns, shipped or the user's own.

system: Be concise.            # optional
turns:
  - user: How many grams are in 6 kg?
    assistant: 1 kg is 1000 g, so 6 kg is 6 * 1000 = 6000 g. <answer>6000</answer>
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from ramify.base.errors import ConfigError, nearest
from ramify.base.types import Conversation, Message

_SHIPPED = Path(__file__).parent


def shipped_fewshot() -> tuple[str, ...]:
    """Names of the few-shot files that come with Ramify."""
    return tuple(sorted(path.stem.removeprefix("fewshot_") for path in _SHIPPED.glob("fewshot_*.yaml")))


def load_fewshot(name: str | Path) -> Conversation:
    """The worked turns of a shipped file (by name) or of a YAML file (by path), its system turn first.

    Raises:
        ConfigError: no such name or file, or the file is not of the form above; names file and entry.
    """
    path = _SHIPPED / f"fewshot_{name}.yaml"
    if str(name) not in shipped_fewshot():
        path = Path(name)
        if not path.is_file():
            raise _unknown(str(name))
    content = _read(path)
    if not isinstance(content, dict):
        raise ConfigError(f"{path}: a mapping with `turns` is needed, found {type(content).__name__}")
    for key in content:
        if key not in ("system", "turns"):
            raise ConfigError(f"{path}: unknown entry {key!r} (allowed: system, turns)")
    system = content.get("system")
    first = () if system is None else (Message("system", _text(system, f"{path}: system")),)
    return first + _turns(content.get("turns"), path)


def with_turns_before(prompt: Conversation, system: str | None, worked: Conversation) -> Conversation:
    """The prompt with a system turn and worked turns put in.

    A system turn of the prompt's own wins over `system`, which wins over that of the worked turns.
    """
    own, turns = _split_system(prompt)
    worked_system, pairs = _split_system(worked)
    given = () if system is None else (Message("system", system),)
    return (own or given or worked_system) + pairs + turns


def _split_system(conversation: Conversation) -> tuple[Conversation, Conversation]:
    has_system = bool(conversation) and conversation[0].role == "system"
    return (conversation[:1], conversation[1:]) if has_system else ((), conversation)


def _unknown(name: str) -> ConfigError:
    shipped = shipped_fewshot()
    guess = nearest(name, shipped)
    asked = f"; did you mean {guess!r}?" if guess else ""
    return ConfigError(f"prompt.fewshot {name!r} is neither a file nor one of {', '.join(shipped)}{asked}")


def _read(path: Path) -> Any:
    try:
        return yaml.safe_load(path.read_text(encoding="utf-8-sig"))
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read: {error}") from None
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = "" if mark is None else f":{mark.line + 1}"
        raise ConfigError(f"{path}{line}: not valid YAML: {getattr(error, 'problem', None) or 'unreadable'}") from None


def _turns(turns: Any, path: Path) -> Conversation:
    if not isinstance(turns, list) or not turns:
        raise ConfigError(f"{path}: turns must be a list of {{user, assistant}} with at least one entry")
    messages: list[Message] = []
    for number, turn in enumerate(turns, start=1):
        if not isinstance(turn, dict) or set(turn) != {"user", "assistant"}:
            found = ", ".join(map(str, turn)) if isinstance(turn, dict) else type(turn).__name__
            raise ConfigError(f"{path}: turn {number} must have exactly user and assistant, found {found}")
        messages += [
            Message(role, _text(turn[role], f"{path}: turn {number}, {role}")) for role in ("user", "assistant")
        ]
    return tuple(messages)


def _text(value: Any, where: str) -> str:
    if not isinstance(value, str) or not value.strip():
        raise ConfigError(f"{where}: text is needed, found {value!r}", hint="put quotes around numbers and yes/no")
    return value.strip()
