"""What is worth knowing about rows before they are trained on, counted while they go by; nothing of them is kept.

    check = RowCheck(Ruler(renderer, limit))     # or RowCheck(None): lengths in characters, no template
    for block in blocks_of_rows:
        check.add(block)
    check.findings()                             # lines of a table: what, and how much of it

A sequence is a prompt and one completion, as it is trained. Memory: about 150 bytes for each row that differs from all
others, which are two keys in Python's sets; no text is kept.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from enum import Enum

from ramify.base.errors import DataError
from ramify.base.rng import key
from ramify.base.types import Conversation, Example, Message
from ramify.prompts.many import Encoded, encode_many
from ramify.prompts.renderer import Renderer
from ramify.prompts.templates import render

Turns = Sequence[Example]
"""What one row trains: an example for each trained assistant turn, in order."""
Line = tuple[str, object]
_SHARES = (0.5, 0.9, 0.99)
_MARK = "\ue000"


class Flaw(Enum):
    """What a template can do to a row."""

    DROPPED = "rows of which the template drops a turn"
    MERGED = "rows whose neighbouring turns the template writes as one"
    CHANGED = "rows whose earlier turns the template writes otherwise later on"
    NO_STOP = "rows behind whose last answer the template writes no stop token (it is added)"
    DOUBLE_BOS = "rows that begin with the BOS token twice"


class Cut(Enum):
    """What a trainer that cuts sequences at the limit would lose of one."""

    END_WHOLE = "cut at the end, as most trainers do, they lose the whole completion"
    END_PART = "cut at the end, as most trainers do, they lose a part of the completion"
    START_PROMPT = "cut at the start, they lose a part of the prompt only"
    START_COMPLETION = "cut at the start, they lose the prompt and a part of the completion"


def cuts(prompt: int, completion: int, limit: int) -> tuple[Cut, Cut] | None:
    """What is lost of a sequence that is cut at its end, or at its start; None when it fits.

    Args:
        prompt: its tokens; `completion` likewise.
        limit: tokens that a sequence may have.
    """
    if prompt + completion <= limit:
        return None
    end = Cut.END_WHOLE if prompt >= limit else Cut.END_PART
    return end, Cut.START_PROMPT if completion <= limit else Cut.START_COMPLETION


def prompt_key(prompt: Conversation) -> int:
    """64 bits that are the same for prompts that differ in white space and letter case only."""
    return key("\n".join(f"{turn.role}: {_folded(turn.content).casefold()}" for turn in prompt))


def asked_key(example: Example) -> int:
    """`prompt_key` of what is asked; a plain text asks nothing, and stands for itself."""
    return prompt_key(example.prompt or tuple(Message("text", each.text) for each in example.completions))


def row_key(turns: Turns) -> int:
    """64 bits that are the same for rows that train the same texts, white space aside."""
    parts = [f"{turn.role}: {_folded(turn.content)}" for turn in turns[-1].prompt]
    parts += [f"{each.weight:g} {_folded(each.text)}" for example in turns for each in example.completions]
    return key("\n".join(parts))


@dataclass(frozen=True, slots=True)
class Ruler:
    """What measures rows in tokens.

    Attributes:
        renderer: of the model and the settings.
        limit: tokens that a sequence may have.
    """

    renderer: Renderer
    limit: int


@dataclass
class Lengths:
    """How many sequences have each length: exact quantiles in the memory of the lengths that differ."""

    counts: Counter[int] = field(default_factory=Counter)

    def quantile(self, share: float) -> int:
        """The smallest length that at least this share of all sequences does not exceed; 0 without any."""
        wanted, seen = share * self.counts.total(), 0
        for length in sorted(self.counts):
            seen += self.counts[length]
            if seen >= wanted:
                return length
        return 0

    def __str__(self) -> str:
        return " / ".join(f"{self.quantile(share):,}" for share in (*_SHARES, 1.0))


@dataclass
class Found:
    """How many, and where the first one stands."""

    count: int = 0
    first: str = ""

    def add(self, source: str) -> None:
        """One more."""
        self.first = self.first if self.count else source
        self.count += 1

    def line(self, what: str) -> Iterator[Line]:
        """A line of the table, when there was any."""
        if self.count:
            yield f"{what} (first: {self.first})" if self.first else what, self.count


class RowCheck:
    """Counts over rows.

    Args:
        ruler: what measures them; None: characters are counted, and nothing is rendered.
        known: prompt keys of the training rows, when these are validation rows.
    """

    def __init__(self, ruler: Ruler | None, known: Collection[int] = ()) -> None:
        self.asked: set[int] = set()
        self._ruler, self._known = ruler, known
        self._rows, self._several, self._tokens, self._trained = 0, 0, 0, 0
        self._lengths = Lengths()
        self._seen: set[int] = set()
        self._repeated, self._asked_again, self._leaked = Found(), Found(), Found()
        self._long, self._unusable = Found(), Found()
        self._reason = ""
        self._flaws = {flaw: Found() for flaw in Flaw}
        self._cuts = {cut: Found() for cut in Cut}
        self._patterns: dict[tuple[str, ...], frozenset[Flaw]] = {}

    def add(self, block: Sequence[Turns]) -> None:
        """Count some rows."""
        for turns in block:
            self._note_texts(turns)
        if self._ruler is None:
            for example in (example for turns in block for example in turns):
                asked = sum(len(turn.content) for turn in example.prompt)
                for each in example.completions:
                    self._note_length(asked, len(each.text))
            return
        encoded = iter(encode_many(self._ruler.renderer, [example for turns in block for example in turns]))
        for turns in block:
            self._note_tokens(self._ruler, turns, [next(encoded) for _ in turns])

    def findings(self) -> list[Line]:
        """Everything that was found."""
        unit = "characters" if self._ruler is None else "tokens"
        lines: list[Line] = [("rows to imitate", self._rows)]
        if self._several:
            lines.append(("of them conversations with several trained turns", self._several))
        lines.append((f"{unit} of a sequence: 50 % / 90 % / 99 % / longest", self._lengths))
        lines.append((f"{unit}, and those trained", f"{self._tokens:,}, {self._trained:,}"))
        lines += self._length_lines()
        lines += self._unusable.line(f"rows that cannot be rendered: {self._reason}")
        for flaw, found in self._flaws.items():
            lines += found.line(flaw.value)
        lines += self._repeated.line("rows that stand there before")
        lines += self._asked_again.line("prompts that stand there before, with another answer")
        if self._known:
            where = f" (first: {self._leaked.first})" if self._leaked.first else ""
            lines.append((f"questions that also occur in train{where}", self._leaked.count))
        return lines

    def _length_lines(self) -> Iterator[Line]:
        if self._ruler is None:
            return
        yield from self._long.line(f"sequences longer than {self._ruler.limit:,} tokens")
        for cut, found in self._cuts.items():
            yield from found.line(f"  {cut.value}")

    def _note_texts(self, turns: Turns) -> None:
        source = turns[0].source
        self._rows += 1
        self._several += len(turns) > 1
        whole, asked = row_key(turns), set(map(asked_key, turns))
        if whole in self._seen:
            self._repeated.add(source)
        elif asked & self.asked:
            self._asked_again.add(source)
        if any(each in self._known for each in asked):
            self._leaked.add(source)
        self._seen.add(whole)
        self.asked |= asked

    def _note_length(self, prompt: int, completion: int) -> None:
        self._lengths.counts[prompt + completion] += 1
        self._tokens += prompt + completion
        self._trained += completion

    def _note_tokens(self, ruler: Ruler, turns: Turns, encoded: Sequence[list[Encoded] | DataError]) -> None:
        source = turns[0].source
        for each in encoded:
            if isinstance(each, DataError):
                self._reason = self._reason or each.message.removeprefix(f"{source}: ")
                self._unusable.add(source)
                return
        sequences = [one for each in encoded if not isinstance(each, DataError) for one in each if one.weight]
        for one in sequences:
            sizes = len(one.prompt), len(one.completion)
            self._note_length(*sizes)
            lost = cuts(*sizes, ruler.limit)
            if lost is not None:
                self._long.add(source)
                for cut in lost:
                    self._cuts[cut].add(source)
        for flaw in self._flaws_of(ruler.renderer, turns, sequences):
            self._flaws[flaw].add(source)

    def _flaws_of(self, renderer: Renderer, turns: Turns, sequences: Sequence[Encoded]) -> Iterator[Flaw]:
        bos = renderer.tokenizer.bos_token_id
        if bos is not None and any(one.prompt[:2].tolist() == [bos, bos] for one in sequences):
            yield Flaw.DOUBLE_BOS
        if renderer.template.is_plain or not turns[0].prompt:
            return
        roles = tuple(turn.role for turn in renderer.conversation(turns[-1].prompt))
        if roles not in self._patterns:
            self._patterns[roles] = frozenset(pattern_flaws(renderer, roles))
        yield from self._patterns[roles]
        if len(turns) > 1 and changes_earlier_turns(renderer, turns):
            yield Flaw.CHANGED


def pattern_flaws(renderer: Renderer, roles: Sequence[str]) -> Iterator[Flaw]:
    """What the template does to any conversation of these roles, found by rendering one of marks and an answer."""
    marks = [f"{_MARK}{number}{_MARK}" for number in range(len(roles) + 1)]
    turns = tuple(map(Message, (*roles, "assistant"), marks))
    try:
        text = render(renderer.tokenizer, renderer.template, turns, generation=False)
    except DataError:  # such rows cannot be rendered, which is said of each
        return
    places = [text.find(mark) for mark in marks]
    if -1 in places:
        yield Flaw.DROPPED
        return
    between = [text[at + len(mark) : after] for at, mark, after in zip(places, marks, places[1:], strict=False)]
    if not all(map(str.strip, between)):
        yield Flaw.MERGED
    stop = str(renderer.tokenizer.convert_ids_to_tokens(renderer.stop_id))
    if stop not in text[places[-1] :]:
        yield Flaw.NO_STOP


def changes_earlier_turns(renderer: Renderer, turns: Turns) -> bool:
    """Whether a later turn's prompt does not begin with what was trained before: those tokens are computed again."""
    texts = renderer.texts([example.prompt for example in turns])
    answers = [renderer.spoken(example.completions[0].text) for example in turns]
    said = [text + answer for text, answer in zip(texts, answers, strict=True)]
    return any(not later.startswith(before) for before, later in zip(said, texts[1:], strict=False))


def _folded(text: str) -> str:
    return " ".join(text.split())
