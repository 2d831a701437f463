"""Speech to text: any sound in, a transcript out that is shown for editing before it is sent."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ramify.serve.speech.audio import Recording, chunks, open_sound
from ramify.serve.speech.recognisers import AUTO, open_recogniser


@dataclass(frozen=True, slots=True)
class Transcript:
    """What was said.

    Attributes:
        text: the words; empty when none were heard.
        seconds: length of the sound.
        recogniser: who heard them.
        note: why there is no text; empty when there is.
    """

    text: str
    seconds: float
    recogniser: str
    note: str = ""


def transcribe(source: Path | Recording, recogniser: str = AUTO) -> Transcript:
    """The words of a sound.

    Args:
        source: a file, or a rate in Hz with samples [time] or [time, channels] (int8 to int32 of full range, or
            float).
        recogniser: see `recognisers`.

    Raises:
        DataError: the sound cannot be read: one line that says why.
        ConfigError: there is no such recogniser here; says what to install.
        ModelError: its weights cannot be used.
    """
    sound = open_sound(source)
    listener = open_recogniser(recogniser)
    if sound.is_silent:
        return Transcript("", sound.seconds, listener.name, "there is only silence")
    heard = [listener.hear(chunk) for chunk in chunks(sound)]
    text = " ".join(part for part in heard if part)
    return Transcript(text, sound.seconds, listener.name, "" if text else "no words were heard")
