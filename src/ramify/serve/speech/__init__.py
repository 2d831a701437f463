"""Speech to text on this machine: `transcribe` is all that others need."""

from __future__ import annotations

from ramify.serve.speech.transcript import Transcript, transcribe

__all__ = ["Transcript", "transcribe"]
