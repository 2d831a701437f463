"""Families that are not built in: the converter of a llama.cpp checkout that the user has."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from ramify.base.errors import ModelError

SCRIPT = "convert_hf_to_gguf.py"
_LAST_LINES = 3


def convert(checkout: Path, folder: Path, target: Path, kind: str) -> None:
    """Run the official converter on a Transformers folder.

    Args:
        checkout: a folder of llama.cpp with its converter.
        kind: f32, f16, bf16 or q8_0.

    Raises:
        ModelError: it failed, or wrote nothing; its last lines say why.
    """
    command = [sys.executable, str(checkout / SCRIPT), str(folder), "--outfile", str(target), "--outtype", kind]
    offline = {**os.environ, "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(command, capture_output=True, text=True, env=offline, check=False)
    if done.returncode or not target.is_file():
        said = " / ".join((done.stderr or done.stdout).strip().splitlines()[-_LAST_LINES:])
        failed = f"{checkout / SCRIPT} failed ({done.returncode}): {said}"
        raise ModelError(failed, hint="are its own requirements installed?")
