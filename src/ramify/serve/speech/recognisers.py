"""Who turns sound into words: faster-whisper where its weights are at hand, else pocketsphinx. Nothing is downloaded.

    auto                    the first of these that is there
    faster-whisper          the best of its models in the hub's cache; faster-whisper:small, or :FOLDER, is a given one
    pocketsphinx            English, its model lies in the package

faster-whisper (Whisper, Radford et al. 2022, arXiv 2212.04356) hears far better and knows many languages; pocketsphinx
(Huggins-Daines et al. 2006) takes 40 MB and needs no more than its package.
"""

from __future__ import annotations

from functools import lru_cache
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from threading import Lock
from typing import Any, Protocol

import numpy as np
from huggingface_hub import try_to_load_from_cache

from ramify.base.errors import ConfigError, ModelError, unknown
from ramify.serve.speech.resample import RATE, Samples

AUTO = "auto"
WHISPER, SPHINX = "faster-whisper", "pocketsphinx"

_WHISPERS = {
    "large-v3": "Systran/faster-whisper-large-v3",
    "large-v3-turbo": "mobiuslabsgmbh/faster-whisper-large-v3-turbo",
    "large-v2": "Systran/faster-whisper-large-v2",
    "distil-large-v3.5": "distil-whisper/distil-large-v3.5-ct2",
    "distil-large-v3": "Systran/faster-distil-whisper-large-v3",
    "medium": "Systran/faster-whisper-medium",
    "medium.en": "Systran/faster-whisper-medium.en",
    "small": "Systran/faster-whisper-small",
    "small.en": "Systran/faster-whisper-small.en",
    "base": "Systran/faster-whisper-base",
    "base.en": "Systran/faster-whisper-base.en",
    "tiny": "Systran/faster-whisper-tiny",
    "tiny.en": "Systran/faster-whisper-tiny.en",
}
"""Models that faster-whisper knows by name, best first."""
_ACTIVE = 5_000
"""Most states that pocketsphinx follows at once, a sixth of its default: the word errors of 17 recordings stayed as
they were, a noisy one took 6.5 s instead of 10.9; with 3,000 it lost words."""
_INSTALL = "pip install 'ramify[chat]'"


class Recogniser(Protocol):
    """Something that hears words."""

    @property
    def name(self) -> str:
        """What transcripts say heard them."""
        ...

    def hear(self, chunk: Samples) -> str:
        """The words of a sound at 16 kHz of 30 s at most; empty: there are none. Safe to call from any thread."""
        ...


def open_recogniser(name: str = AUTO) -> Recogniser:
    """The recogniser of that name; one that was opened before is not loaded again.

    Raises:
        ConfigError: there is none of that name, it is not installed, or its weights are not at hand.
        ModelError: its weights cannot be used.
    """
    kind, _, model = name.partition(":")
    if name == AUTO:
        if find_spec("faster_whisper") is not None and _cached_whisper() is not None:
            return _whisper("")
        if find_spec(SPHINX) is not None:
            return _sphinx()
        raise ConfigError("no speech recogniser is installed", hint=_INSTALL)
    if kind == WHISPER:
        return _whisper(model)
    if name == SPHINX:
        return _sphinx()
    raise ConfigError(unknown("speech recogniser", name, (AUTO, SPHINX, WHISPER, f"{WHISPER}:MODEL")))


class Sphinx:
    """pocketsphinx with the English model of its package."""

    name = SPHINX

    def __init__(self) -> None:
        package = import_module("pocketsphinx")
        self._decoder = package.Decoder(samprate=RATE, maxhmmpf=_ACTIVE, loglevel="FATAL")
        self._lock = Lock()

    def hear(self, chunk: Samples) -> str:
        """See `Recogniser.hear`."""
        sound = (np.clip(chunk, -1.0, 1.0) * 32767.0).astype("<i2").tobytes()
        with self._lock:
            self._decoder.start_utt()
            self._decoder.process_raw(sound, no_search=False, full_utt=True)  # norms over the whole chunk
            self._decoder.end_utt()
            found = self._decoder.hyp()
        return "" if found is None else str(found.hypstr)


class Whisper:
    """faster-whisper with weights that lie on this machine.

    Args:
        folder: of a model in the form of CTranslate2.

    Raises:
        ModelError: there is none, or it cannot be used.
    """

    def __init__(self, folder: Path, name: str) -> None:
        self.name = name
        package = import_module("faster_whisper")
        try:
            self._model: Any = package.WhisperModel(str(folder), device="auto", local_files_only=True)
        except (RuntimeError, ValueError, OSError) as error:
            reason = (str(error).strip() or type(error).__name__).splitlines()[0]
            raise ModelError(f"{name}: its weights cannot be used: {reason}") from None
        self._lock = Lock()

    def hear(self, chunk: Samples) -> str:
        """See `Recogniser.hear`."""
        with self._lock:
            # Without the text before it: one misheard chunk would otherwise be repeated in all that follow.
            found, _ = self._model.transcribe(chunk, beam_size=5, vad_filter=True, condition_on_previous_text=False)
            return " ".join(each.text.strip() for each in found)


@lru_cache(maxsize=1)
def _sphinx() -> Sphinx:
    if find_spec(SPHINX) is None:
        raise ConfigError(f"{SPHINX} is not installed", hint=_INSTALL)
    return Sphinx()


@lru_cache(maxsize=1)
def _whisper(model: str) -> Whisper:
    """The model of that name or folder; empty: the best one in the cache."""
    if find_spec("faster_whisper") is None:
        raise ConfigError(f"{WHISPER} is not installed", hint=f"pip install {WHISPER}, or the recogniser {SPHINX}")
    if model and Path(model).is_dir():
        return Whisper(Path(model), f"{WHISPER}:{model}")
    if model and model not in _WHISPERS:
        raise ConfigError(f"{unknown(f'model of {WHISPER}', model, _WHISPERS)}, and it is no folder")
    found = _cached_whisper(model)
    if found is None:
        which = f"the model {model}" if model else "no model"
        where = f"{WHISPER}: {which} is {'not ' if model else ''}in the cache of the hub, and none is downloaded here"
        fetch = f"hf download {_WHISPERS[model or 'small']}"
        raise ConfigError(where, hint=f"{fetch}, or give a folder: {WHISPER}:FOLDER")
    return Whisper(found[1], f"{WHISPER}:{found[0]}")


def _cached_whisper(model: str = "") -> tuple[str, Path] | None:
    """Name and folder of a model whose weights are in the hub's cache: the one asked for, or the best."""
    for name in [model] if model else _WHISPERS:
        weights = try_to_load_from_cache(_WHISPERS[name], "model.bin")
        if isinstance(weights, str) and Path(weights).is_file():
            return name, Path(weights).parent
    return None
