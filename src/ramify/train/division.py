"""Which process computes which part of a step: all cut the same rows in the same way, and each takes its own parts."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from ramify.train.interrupt import DeferredInterrupt
from ramify.train.objective import Objective
from ramify.train.ranks import ALONE, Ranks
from ramify.train.tally import Tally, add_up


@dataclass(frozen=True)
class Turn:
    """One forward (and backward) pass of one process.

    Attributes:
        number: of the micro-batch among those of all processes; random numbers are keyed by it.
        indices: rows of the micro-batch.
        counts: whether it adds anything. A sharded model is gathered by all processes together, so that one without a
            micro-batch of its own computes another's with weight 0.
    """

    number: int
    indices: Sequence[int]
    counts: bool = True


def cut(objective: Objective, indices: Sequence[int], micro_tokens: int, size: int) -> list[list[int]]:
    """The rows in micro-batches of at most `micro_tokens` packed tokens, at least `size` of them where the rows allow.

    With several processes the micro-batches are made smaller, so that their number is about a multiple of `size` and
    no process waits for the others longer than need be.
    """
    parts = objective.micro_batches(indices, micro_tokens)
    if size == 1 or not parts:
        return parts
    total = sum(objective.tokens(part) for part in parts)
    rounds = math.ceil(total / (size * micro_tokens))
    budget = min(micro_tokens, math.ceil(total / (size * rounds)))
    parts = objective.micro_batches(indices, budget)
    while len(parts) < min(size, len(indices)) and budget > 0:
        budget = budget * 3 // 4
        parts = objective.micro_batches(indices, budget)
    return parts


def divide(loads: Sequence[int], size: int) -> list[list[int]]:
    """Places of the loads for each of `size` processes: the largest one first, to whoever has least so far.

    Source: Graham 1969, Bounds on multiprocessing timing anomalies (longest processing time first).
    """
    shares: list[list[int]] = [[] for _ in range(size)]
    sums = [0] * size
    for place in sorted(range(len(loads)), key=lambda place: (-loads[place], place)):
        least = min(range(size), key=lambda rank: (sums[rank], rank))
        shares[least].append(place)
        sums[least] += loads[place]
    return [sorted(share) for share in shares]


@dataclass(frozen=True)
class Company:
    """The processes of a step: what each computes of it, and what they agree on afterwards.

    Attributes:
        in_step: the model is sharded, so that all have to compute the same number of turns.
        interrupt: asks this process to stop; a step is given up by all or by none.
    """

    ranks: Ranks = ALONE
    in_step: bool = False
    interrupt: DeferredInterrupt | None = None

    def turns(self, objective: Objective, parts: Sequence[Sequence[int]]) -> list[Turn]:
        """What this process computes of the micro-batches of a step."""
        size = self.ranks.size
        if size == 1:
            return [Turn(number, part) for number, part in enumerate(parts)]
        loads = [objective.tokens(part) for part in parts]
        shares = divide(loads, size)
        mine = [Turn(number, parts[number]) for number in shares[self.ranks.rank]]
        if self.in_step:
            shortest = min(range(len(loads)), key=loads.__getitem__)
            missing = max(len(share) for share in shares) - len(mine)
            mine += [Turn(shortest, parts[shortest], counts=False)] * missing
        return mine

    def until_asked(self, turns: Sequence[Turn]) -> Iterator[Turn]:
        """The turns, until this process is asked to stop; all of them where it has to keep in step."""
        for turn in turns:
            if self._asked is not None and not self.in_step:
                return
            yield turn

    def agree(self, own: Tally, turns: Sequence[Turn]) -> Tally:
        """What all processes counted together, and whether one of them was asked to stop.

        Args:
            own: what this process counted, and `turns` what it was to compute.

        Raises:
            KeyboardInterrupt: one was asked to stop and has not computed all; raised by all.
        """
        is_whole = len(own.losses) == sum(turn.counts for turn in turns)
        found = add_up(self.ranks.gather(replace(own, is_whole=is_whole, asked=self._asked)))
        if found.asked is not None and not found.is_whole:
            raise found.asked("asked to stop")
        return found

    @property
    def _asked(self) -> type[KeyboardInterrupt] | None:
        return None if self.interrupt is None else self.interrupt.asked


BY_ITSELF = Company()
"""One process, which nobody interrupts."""
