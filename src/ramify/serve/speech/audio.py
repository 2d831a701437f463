"""Sound files and recordings as mono blocks: any rate, any number of channels, any length in bounded memory.

WAV is read with or without soundfile; FLAC, OGG, MP3, AIFF and more need it. A sound is looked through once before
anything is recognised, so whatever is broken is refused first.
"""

from __future__ import annotations

import struct
import wave
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ramify.base.errors import DataError
from ramify.serve.speech.resample import RATE, Resampler, Samples

Recording = tuple[int, npt.NDArray[Any]]
"""A rate in Hz and samples [time] or [time, channels]: what a microphone of a page gives."""

SILENT = 1e-4
"""Sounds whose loudest sample is below this share of full scale (−80 dB) are silence."""
LONGEST, SHORTEST = 30.0, 10.0
"""Seconds of one chunk: it is cut at the quietest place between the two."""
RATES = range(1_000, 768_001)
"""Rates in Hz that are read."""

_CHANNELS = 32
_BLOCK = 5.0  # seconds read at once
_PAUSE = 0.2  # seconds over which loudness is measured to find a pause
_LEVEL = 0.5  # loudest sample of what is recognised
_SLACK = 4_096  # bytes that recorders write less than they say
_STREAMED = 0x7FFF0000  # sizes from here on stand in headers of sounds that were written to a pipe
_NOT_SOUND = {
    (4, b"ftyp"): "an MP4 or M4A file",
    (0, b"\x1a\x45\xdf\xa3"): "a WebM or Matroska file",
    (8, b"AVI "): "an AVI video",
    (0, b"\x00\x00\x01\xba"): "an MPEG video",
    (0, b"\x30\x26\xb2\x75"): "a Windows Media file",
}
_CONVERT = "ffmpeg -i FILE sound.wav makes a file that can be read"
_INSTALL = "pip install 'ramify[chat]', or give a WAV file"


@dataclass(frozen=True)
class Sound:
    """A sound that can be read as often as needed.

    Attributes:
        rate: in Hz.
        frames: samples of each channel.
        peak: the loudest sample, 1 being full scale.
        blocks: its mean over channels, float32 [time] a block, at its own rate.
    """

    rate: int
    frames: int
    peak: float
    blocks: Callable[[], Iterator[Samples]]

    @property
    def seconds(self) -> float:
        """How long it is."""
        return self.frames / self.rate

    @property
    def is_silent(self) -> bool:
        """Whether there is nothing to hear."""
        return self.peak < SILENT


def open_sound(source: Path | Recording) -> Sound:
    """Look a file or recording through.

    Raises:
        DataError: it is missing, empty, cut off, no sound, or holds values that are not numbers.
    """
    name = "recording" if isinstance(source, tuple) else str(source)
    rate, declared, blocks = _recording(*source) if isinstance(source, tuple) else _file(Path(source))
    if rate not in RATES:
        raise DataError(f"{name}: a rate of {rate} Hz cannot be read (allowed: {RATES[0]} to {RATES[-1]})")
    frames, peak = 0, 0.0
    for block in blocks():
        if not np.isfinite(block).all():
            raise DataError(f"{name}: holds values that are not numbers")
        frames += len(block)
        peak = max(peak, float(np.abs(block).max(initial=0.0)))
    if frames < declared - rate // 10:  # decoders of lossy formats are off by less
        raise DataError(f"{name}: is cut off: {frames / rate:.1f} of {declared / rate:.1f} s are there")
    if not frames:
        raise DataError(f"{name}: holds no sound")
    return Sound(rate, frames, peak, blocks)


def chunks(sound: Sound) -> Iterator[Samples]:
    """The sound at 16 kHz in chunks of 30 s at most, cut at pauses, its loudest sample at half of full scale.

    Silent chunks are left out: recognisers make words up in silence.
    """
    waiting = np.zeros(0, dtype=np.float32)
    for block in _resampled(sound):
        waiting = np.concatenate([waiting, block])
        while len(waiting) >= LONGEST * RATE:
            end = _pause(waiting)
            yield from _audible(waiting[:end], sound)
            waiting = waiting[end:]
    yield from _audible(waiting, sound)


def _audible(chunk: Samples, sound: Sound) -> Iterator[Samples]:
    if len(chunk) and float(np.abs(chunk).max()) >= SILENT:
        yield chunk * np.float32(_LEVEL / sound.peak)


def _resampled(sound: Sound) -> Iterator[Samples]:
    resampler = Resampler(sound.rate)
    for block in sound.blocks():
        yield resampler.push(block)
    yield resampler.finish()


def _pause(samples: Samples) -> int:
    """The middle of the quietest fifth of a second among the places where a chunk may end."""
    width = int(_PAUSE * RATE)
    first, last = int(SHORTEST * RATE), int(LONGEST * RATE)
    energy = np.concatenate([[0.0], np.cumsum(np.square(samples[first:last], dtype=np.float64))])
    return first + int(np.argmin(energy[width:] - energy[:-width])) + width // 2


_Opened = tuple[int, int, Callable[[], Iterator[Samples]]]  # rate, declared frames, blocks


def _recording(rate: int, samples: npt.NDArray[Any]) -> _Opened:
    found = np.asarray(samples)
    is_number = found.dtype.kind == "f" or (found.dtype.kind in "iu" and found.dtype.itemsize <= 4)
    if not is_number or found.ndim not in (1, 2) or (found.ndim == 2 and found.shape[1] not in range(1, _CHANNELS + 1)):
        raise DataError(f"recording: numbers [time] or [time, channels] are needed, found {found.dtype} {found.shape}")
    step = max(1, int(_BLOCK * rate))

    def blocks() -> Iterator[Samples]:
        for start in range(0, len(found), step):
            yield _mono(_full_scale(found[start : start + step]))

    return int(rate), len(found), blocks


def _full_scale(samples: npt.NDArray[Any]) -> Samples:
    """Integers as shares of their type's range."""
    if samples.dtype.kind == "f":
        with np.errstate(over="ignore"):  # what float32 cannot hold becomes infinite, and is refused
            return samples.astype(np.float32)
    bits = 8 * samples.dtype.itemsize
    middle = 2.0 ** (bits - 1) if samples.dtype.kind == "u" else 0.0
    return ((samples.astype(np.float64) - middle) / 2.0 ** (bits - 1)).astype(np.float32)


def _mono(samples: Samples) -> Samples:
    return samples if samples.ndim == 1 else samples.mean(axis=1, dtype=np.float32)


def _file(path: Path) -> _Opened:
    """A sound file.

    Raises:
        DataError: it cannot be read as one.
    """
    try:
        with path.open("rb") as file:
            head = file.read(12)
            is_wav = head[:4] == b"RIFF" and head[8:] == b"WAVE"
            if is_wav:
                _check_whole(path, file)
    except FileNotFoundError:
        raise DataError("no such file", path=path) from None
    except OSError as error:
        raise DataError(f"cannot be read: {error.strerror or error}", path=path) from None
    if not head:
        raise DataError("the file is empty", path=path)
    for (place, mark), what in _NOT_SOUND.items():
        if head[place : place + len(mark)] == mark:
            raise DataError(f"{what}, which no decoder here reads", path=path, hint=_CONVERT)
    soundfile = _soundfile()
    if soundfile is not None:
        return _decoded(path, soundfile)
    if not is_wav:
        raise DataError("sound that is not WAV needs soundfile, which is not installed", path=path, hint=_INSTALL)
    return _plain_wav(path)


def _check_whole(path: Path, file: Any) -> None:
    """Refuse a WAV file that ends before its header says so: decoders read what is left as if it were all."""
    size = path.stat().st_size
    while len(head := file.read(8)) == 8:
        kind, length = struct.unpack("<4sI", head)
        if kind == b"data":
            missing = file.tell() + length - size
            if missing > max(_SLACK, length // 100) and length < _STREAMED:
                raise DataError(f"is cut off: {missing:,} of {length:,} bytes of sound are missing", path=path)
            return
        file.seek(length + length % 2, 1)
    raise DataError("is cut off: the header is there, the sound is missing", path=path)


def _soundfile() -> Any:
    """The package, or None where it or its library is missing."""
    try:
        return import_module("soundfile")
    except (ImportError, OSError):
        return None


def _decoded(path: Path, soundfile: Any) -> _Opened:
    """Through libsndfile."""

    def blocks() -> Iterator[Samples]:
        try:
            with soundfile.SoundFile(str(path)) as file:
                step = max(1, int(_BLOCK * file.samplerate))
                while len(block := file.read(step, dtype="float32", always_2d=True)):
                    yield _mono(block)
        except soundfile.LibsndfileError as error:
            raise _unreadable(path, error.error_string) from None

    try:
        found = soundfile.info(str(path))
    except soundfile.LibsndfileError as error:
        raise _unreadable(path, error.error_string) from None
    return int(found.samplerate), int(found.frames), blocks


def _plain_wav(path: Path) -> _Opened:
    """Through the standard library: WAV of whole numbers."""

    def blocks() -> Iterator[Samples]:
        with wave.open(str(path)) as file:
            step, width, channels = max(1, int(_BLOCK * file.getframerate())), file.getsampwidth(), file.getnchannels()
            while data := file.readframes(step):
                yield _mono(_numbers(data[: len(data) - len(data) % (width * channels)], width).reshape(-1, channels))

    try:
        with wave.open(str(path)) as file:
            if file.getsampwidth() > 4:
                raise _unreadable(path, f"{8 * file.getsampwidth()} bits a sample", hint=_INSTALL)
            return file.getframerate(), 0, blocks
    except (wave.Error, EOFError) as error:
        raise _unreadable(path, str(error) or "the header is cut off", hint=_INSTALL) from None


def _numbers(data: bytes, width: int) -> Samples:
    """Samples of so many bytes each, as shares of full scale. 8 bits have no sign, 24 bits no type in NumPy."""
    if width == 3:
        padded = np.zeros((len(data) // 3, 4), dtype=np.uint8)
        padded[:, 1:] = np.frombuffer(data, dtype=np.uint8).reshape(-1, 3)
        return _full_scale(padded.reshape(-1).view("<i4"))
    return _full_scale(np.frombuffer(data, dtype={1: "u1", 2: "<i2", 4: "<i4"}[width]))


def _unreadable(path: Path, reason: str, *, hint: str = _CONVERT) -> DataError:
    said = reason.strip().rstrip(".").removeprefix("Error : ")
    return DataError(f"no sound that can be read: {said}", path=path, hint=hint)
