"""A conversation at a terminal: its state, and what each typed line does to it. Nothing here prints or computes.

    outcome = act(session, "/set temperature 0.4")      # the session from here on, and what is to be done
    fitted = fit(outcome.session, question, voice.renderer.prompt_ids, voice.service.max_length)
    session = answered(outcome.session, question, text, stop)

The same lines in the same order give the same seeds: the answer to a turn is drawn with a seed of (session's seed,
turn, attempt), and so a session can be played again.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from enum import Enum
from typing import Any

import yaml

from ramify.base.config import Sampling
from ramify.base.config_file import parse_config, yaml_scalar
from ramify.base.errors import ConfigError, LengthError, unknown
from ramify.base.rng import key
from ramify.base.types import Conversation, Message, Stop

BLOCK = '"""'
"""Begins and ends a text of several lines."""
COMMANDS = {
    "/system TEXT": "the system turn from here on; `none` for none, `own` for the model's own",
    "/set NAME VALUE": "how answers are drawn: temperature, top_p, top_k, min_p, repetition_penalty, …, seed",
    "/retry": "another answer to the last question",
    "/undo": "forget the last question and its answer",
    "/compare [TEXT]": "ask both models: this, the last question, or else the next one",
    "/save FILE": "append the conversation to FILE.jsonl, as a row to train on",
    "/show": "the settings, and the last prompt as the model saw it",
    "/history": "the conversation",
    "/clear": "forget the conversation",
    "/help": "this",
    "/quit": "the end (or Ctrl-D)",
}
_IDLE = {
    "n": "a question has one answer here; /retry draws another",
    "live": "it bounds how many prompts of a file are completed at once",
}
"""Settings of sampling that would do nothing in a conversation, and why."""
_NOTHING = "nothing was asked yet"


class Then(Enum):
    """What is to be done once a line was read."""

    NOTHING = "nothing"  # but to show the outcome's text
    ASK = "ask"  # complete the question
    COMPARE = "compare"  # have both models complete it
    SAVE = "save"  # append the conversation to the file that the text names
    SHOW = "show"  # settings and prompt
    HISTORY = "history"  # all turns
    HELP = "help"  # the commands
    QUIT = "quit"  # end


@dataclass(frozen=True, slots=True)
class Exchange:
    """A question with its answer; stop None: somebody stopped it."""

    question: str
    answer: str
    stop: Stop | None
    attempt: int = 0

    @property
    def whole(self) -> bool:
        """Whether the answer came to its own end, and says something: only then is it an example."""
        return self.stop in (Stop.EOS, Stop.STOP_STRING) and bool(self.answer.strip())


@dataclass(frozen=True, slots=True)
class Question:
    """What an answer is wanted to, for the first time (attempt 0) or again."""

    text: str
    attempt: int = 0


@dataclass(frozen=True, slots=True)
class Session:
    """What has been said, and how it goes on.

    Attributes:
        settings: how answers are drawn.
        seed: what all seeds of answers follow from.
        system: the system turn; None: each model's own; empty: none at all.
        exchanges: questions and answers, the first one first.
        comparing: whether both models are asked the next question.
    """

    settings: Sampling
    seed: int = 0
    system: str | None = None
    exchanges: tuple[Exchange, ...] = ()
    comparing: bool = False

    def conversation(self, question: str, dropped: int = 0) -> Conversation:
        """The turns up to where an answer to `question` is wanted, without the oldest `dropped` exchanges."""
        turns = [] if self.system is None else [Message("system", self.system)]
        for each in self.exchanges[dropped:]:
            turns += [Message("user", each.question), Message("assistant", each.answer)]
        return (*turns, Message("user", question))

    def seed_of(self, question: Question) -> int:
        """Seed of the answer to the next question, below 2^31."""
        return key("chat", self.seed, len(self.exchanges), question.attempt) >> 33


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a line did.

    Attributes:
        session: from here on; where a question is asked, what was said before it.
        text: to be shown; for `SAVE` the file.
        question: for `ASK` and `COMPARE`.
    """

    session: Session
    then: Then = Then.NOTHING
    text: str = ""
    question: Question | None = None


@dataclass(frozen=True, slots=True)
class Fitted:
    """A prompt that fits.

    Attributes:
        ids: of the prompt.
        dropped: oldest exchanges that had to be left out.
        room: tokens that the answer may have: as many as wanted, or as there is room for.
    """

    ids: tuple[int, ...]
    dropped: int
    room: int


def act(session: Session, line: str) -> Outcome:
    """What a line, or a text of several, does: a command when it begins with `/`, else a question (`//` is one slash).

    Raises:
        ConfigError: an unknown command or setting, or a value that is not allowed; the session is as it was.
    """
    text = line.strip()
    if not text:
        return Outcome(session)
    if not text.startswith("/") or text.startswith("//"):
        asked = Question(text[1:] if text.startswith("//") else text)
        return Outcome(replace(session, comparing=False), Then.COMPARE if session.comparing else Then.ASK, "", asked)
    name, *behind = text.split(maxsplit=1)
    known = {usage.split()[0]: usage for usage in COMMANDS}
    if name not in known:
        raise ConfigError(unknown("command", name, known), hint="a question that begins with / is written //")
    if behind and known[name] == name:
        raise ConfigError(f"{name} takes nothing behind it, found {behind[0]!r}")
    return _ACTIONS[name](session, "".join(behind))


def answered(session: Session, question: Question, answer: str, stop: Stop | None) -> Session:
    """The session with one more exchange."""
    return replace(session, exchanges=(*session.exchanges, Exchange(question.text, answer, stop, question.attempt)))


def fit(
    session: Session, question: Question, prompt_ids: Callable[[Conversation], tuple[int, ...]], max_length: int
) -> Fitted:
    """The prompt with as much of the conversation as there is room for: the oldest exchanges go first, and whole.

    Kept free for the answer is what it may have, at most half of the model's length.

    Raises:
        LengthError: not even the question alone leaves room for one token.
        DataError: the template refuses the turns.
    """
    wanted = session.settings.max_new_tokens
    free = min(wanted, max_length // 2)
    for dropped in range(len(session.exchanges) + 1):
        ids = prompt_ids(session.conversation(question.text, dropped))
        if len(ids) + free <= max_length:
            break
    room = min(wanted, max_length - len(ids))
    if room < 1:
        taken = f"the question and what stands before it are {len(ids)} tokens, the model takes {max_length}"
        raise LengthError(taken, hint="shorten it, or the system turn")
    return Fitted(ids, dropped, room)


def training_row(session: Session, own_system: str | None) -> dict[str, Any]:
    """The conversation as a row of the shape `messages`. Answers that did not come to their end have weight 0: they
    are context for what follows, and nothing to imitate.

    Args:
        own_system: the model's own system turn, which was used where the session has none.

    Raises:
        ConfigError: there is nothing to imitate.
    """
    if not any(each.whole for each in session.exchanges):
        why = "no answer came to its end" if session.exchanges else _NOTHING
        raise ConfigError(f"nothing to save: {why}", hint="/set max_new_tokens gives answers more room")
    system = own_system if session.system is None else session.system
    messages: list[dict[str, Any]] = [{"role": "system", "content": system}] if system else []
    for each in session.exchanges:
        messages.append({"role": "user", "content": each.question})
        messages.append({"role": "assistant", "content": each.answer, **({} if each.whole else {"weight": 0})})
    return {"messages": messages}


def complete(lines: Sequence[str]) -> str | None:
    """The text that lines typed so far make, or None while it goes on.

    A line that ends in a backslash goes on in the next one. A text between three quotes is a question, whatever it
    begins with.
    """
    first, last = lines[0].strip(), lines[-1]
    if first.startswith(BLOCK):
        text = "\n".join(lines).strip()[len(BLOCK) :]
        return _as_question(text[: -len(BLOCK)].strip()) if text.endswith(BLOCK) else None
    if last.endswith("\\"):
        return None
    return "\n".join([*(line[:-1] for line in lines[:-1]), last])


def _as_question(text: str) -> str:
    """What `act` takes as this question, also when it begins as a command does."""
    return f"/{text}" if text.startswith("/") else text


def settings_of(session: Session) -> dict[str, str]:
    """All that `/set` sets, by name."""
    values: dict[str, Any] = {**session.settings.model_dump(mode="json"), "seed": session.seed}
    return {name: str(value) for name, value in values.items() if name not in _IDLE}


def _system(session: Session, text: str) -> Outcome:
    if not text:
        now = {None: "the model's own", "": "none"}.get(session.system, session.system)
        return Outcome(session, text=f"system turn: {now}")
    chosen = {"none": "", "own": None}.get(text, text)
    said = {None: "the model's own", "": "none"}.get(chosen, "set")
    return Outcome(replace(session, system=chosen), text=f"system turn: {said}")


def _set(session: Session, text: str) -> Outcome:
    shown = settings_of(session)
    if not text:
        return Outcome(session, text="  ".join(f"{name} {value}" for name, value in shown.items()))
    name, value = re.split(r"\s*=\s*|\s+", text, maxsplit=1) if re.search(r"[\s=]", text) else (text, "")
    if name in _IDLE:
        raise ConfigError(f"/set {name}: {_IDLE[name]}")
    if name not in shown:
        raise ConfigError(unknown("setting", name, shown))
    changed = _changed(session, name, _value(name, value))
    return Outcome(changed, text=f"{name} {settings_of(changed)[name]}")


def _changed(session: Session, name: str, value: Any) -> Session:
    """The session with one setting changed.

    Raises:
        ConfigError: the value is not allowed.
    """
    if name != "seed":
        values = {**session.settings.model_dump(), name: value}
        return replace(session, settings=parse_config({"sample": values}, "/set").sample)
    if not isinstance(value, int) or isinstance(value, bool):
        raise ConfigError(f"/set: seed = {value!r}: a whole number is needed")
    return replace(session, seed=value)


def _value(name: str, text: str) -> Any:
    """A value as YAML reads it; a stop string alone is a list of one."""
    if not text:
        raise ConfigError(f"/set {name}: a value is missing", hint=f"/set {name} VALUE")
    try:
        value = yaml_scalar(text)
    except (yaml.YAMLError, RecursionError):
        raise ConfigError(f"/set: {name} = {text!r}: not valid YAML", hint="quotes go around odd letters") from None
    return [str(value)] if name == "stop" and not isinstance(value, list) else value


def _retry(session: Session, _: str) -> Outcome:
    last = _last(session)
    before = replace(session, exchanges=session.exchanges[:-1])
    same = "at temperature 0 the answer stays the same" if session.settings.temperature == 0 else ""
    return Outcome(before, Then.ASK, same, Question(last.question, last.attempt + 1))


def _undo(session: Session, _: str) -> Outcome:
    last = _last(session)
    return Outcome(replace(session, exchanges=session.exchanges[:-1]), text=f"forgotten: {last.question}")


def _compare(session: Session, text: str) -> Outcome:
    if text:
        return Outcome(replace(session, comparing=False), Then.COMPARE, "", Question(text))
    if not session.exchanges:
        return Outcome(replace(session, comparing=True), text="both models are asked the next question")
    last = session.exchanges[-1]
    before = replace(session, exchanges=session.exchanges[:-1])
    return Outcome(before, Then.COMPARE, "", Question(last.question, last.attempt))


def _save(session: Session, text: str) -> Outcome:
    if not text.endswith(".jsonl") or "\0" in text:
        raise ConfigError(f"/save {text!r}: the file's name ends in .jsonl", hint="/save talks.jsonl")
    return Outcome(session, Then.SAVE, text)


def _last(session: Session) -> Exchange:
    if not session.exchanges:
        raise ConfigError(_NOTHING)
    return session.exchanges[-1]


_ACTIONS: dict[str, Callable[[Session, str], Outcome]] = {
    "/system": _system,
    "/set": _set,
    "/retry": _retry,
    "/undo": _undo,
    "/compare": _compare,
    "/save": _save,
    "/show": lambda session, _: Outcome(session, Then.SHOW),
    "/history": lambda session, _: Outcome(session, Then.HISTORY),
    "/clear": lambda session, _: Outcome(replace(session, exchanges=(), comparing=False), text="all forgotten"),
    "/help": lambda session, _: Outcome(session, Then.HELP),
    "/quit": lambda session, _: Outcome(session, Then.QUIT),
}
