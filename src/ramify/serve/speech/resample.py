"""Sound of any rate at 16 kHz, block by block: a band-limited polyphase filter in NumPy.

The kernel is a windowed sinc (Kaiser window; Oppenheim & Schafer, Discrete-Time Signal Processing, 7.5): flat within
0.001 dB up to 0.447 of the lower of the two rates (7,150 Hz of 16 kHz), and 80 dB down from half of it on, so nothing
above is folded into speech. The delay is taken out: sample n of the result lies at n / 16,000 s of the source.
"""

from __future__ import annotations

from math import ceil, gcd

import numpy as np
import numpy.typing as npt

Samples = npt.NDArray[np.float32]
"""Mono sound, float32 [time]."""

RATE = 16_000
"""What recognisers hear, in Hz."""
_CROSSINGS = 48  # zero crossings of the kernel on each side, at the lower rate
_ATTENUATION = 80.0  # dB
_BETA = 0.1102 * (_ATTENUATION - 8.7)
_TRANSITION = (_ATTENUATION - 7.95) / (14.36 * 2 * _CROSSINGS)  # width, as a share of the lower rate


class Resampler:
    """Turns blocks of one rate into blocks at 16 kHz; joined, they do not depend on where the blocks were cut.

    Args:
        rate: of the blocks, in Hz.
    """

    def __init__(self, rate: int) -> None:
        common = gcd(rate, RATE)
        self._up, self._down = RATE // common, rate // common
        self._half = ceil(_CROSSINGS * max(1.0, rate / RATE))
        phases = np.arange(self._up)
        self._starts = phases * self._down // self._up  # whole samples into a cycle at which each result begins
        self._bank = _kernels((phases * self._down % self._up) / self._up, self._half, min(1.0, RATE / rate))
        self._rest = np.zeros(self._half - 1, dtype=np.float32)
        self._taken = self._given = 0

    def push(self, block: Samples) -> Samples:
        """What is known of the result once this block has come."""
        if self._up == self._down:
            return block
        self._taken += len(block)
        self._rest = np.concatenate([self._rest, block])
        room = len(self._rest) - 2 * self._half - int(self._starts[-1])
        return self._cycles(room // self._down + 1 if room >= 0 else 0)

    def finish(self) -> Samples:
        """The end of the result: ceil(taken · 16,000 / rate) samples were returned in all."""
        if self._up == self._down:
            return np.zeros(0, dtype=np.float32)
        left = ceil(self._taken * self._up / self._down) - self._given
        silence = np.zeros(2 * self._half + (left // self._up + 2) * self._down, dtype=np.float32)
        self._rest = np.concatenate([self._rest, silence])
        return self._cycles(left // self._up + 1)[:left]

    def _cycles(self, count: int) -> Samples:
        """So many cycles: `up` results from `down` samples each."""
        found = np.empty((count, self._up), dtype=np.float32)
        if count:
            windows = np.lib.stride_tricks.sliding_window_view(self._rest, 2 * self._half)
            for phase, start in enumerate(self._starts):
                found[:, phase] = windows[start :: self._down][:count] @ self._bank[phase]
        self._rest = self._rest[count * self._down :]
        self._given += found.size
        return found.reshape(-1)


def _kernels(fractions: npt.NDArray[np.float64], half: int, scale: float) -> Samples:
    """The filter for each position between two samples, float32 [positions, 2 · half], each of sum 1.

    Args:
        fractions: positions behind the sample at index half - 1, in samples, 0 to 1.
        scale: the lower rate as a share of the source's.
    """
    times = np.arange(1 - half, half + 1) - fractions[:, None]
    cut = scale * (1.0 - _TRANSITION)  # middle of the transition, which ends at half the lower rate; 1 is Nyquist
    window = np.i0(_BETA * np.sqrt(np.clip(1.0 - (times / half) ** 2, 0.0, None))) / np.i0(_BETA)
    kernels = np.sinc(cut * times) * window
    found: Samples = (kernels / kernels.sum(axis=1, keepdims=True)).astype(np.float32)
    return found
