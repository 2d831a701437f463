"""Spoken sentences: made by flite (a program of Debian), so that tests need no recordings."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import soundfile

SENTENCES = (
    "the train to london leaves at half past seven",
    "please open the window and let some fresh air in",
    "we walked along the river until it was dark",
    "my brother bought three apples and a loaf of bread",
    "the meeting was moved to the second week of march",
    "a cold wind blew from the north all day",
    "she wrote a long letter to her mother",
    "the children played in the garden after school",
    "he opened the door and walked into the kitchen",
    "the doctor told him to drink more water every day",
)


def spoken(text: str, path: Path, voice: str = "slt") -> Path:
    """A WAV file of a voice that says so; the test is skipped where flite is missing."""
    program = shutil.which("flite")
    if program is None:
        pytest.skip("no flite here (apt-get install flite)")
    subprocess.run([program, "-voice", voice, "-t", text, str(path)], check=True, capture_output=True, timeout=60)
    return path


def samples_of(path: Path) -> tuple[int, npt.NDArray[np.int16]]:
    """Rate and samples of a file."""
    samples, rate = soundfile.read(str(path), dtype="int16")
    return rate, samples


def word_error(said: str, heard: str) -> float:
    """Word error rate: insertions, deletions and substitutions as a share of the words that were said."""
    wanted, found = said.split(), heard.lower().split()
    row = list(range(len(found) + 1))
    for number, word in enumerate(wanted, start=1):
        above, row[0] = row[0], number
        for place, other in enumerate(found, start=1):
            above, row[place] = row[place], min(row[place] + 1, row[place - 1] + 1, above + (word != other))
    return row[-1] / len(wanted)
