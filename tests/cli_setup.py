"""A command line, run in the process of the test."""

from __future__ import annotations

import sys

import pytest

from ramify.cli.main import main


def ramify(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *arguments: object
) -> tuple[int, str, str]:
    """Exit code, standard output and standard error of a command line, run in this process."""
    monkeypatch.setattr(sys, "argv", ["ramify", *map(str, arguments)])
    with pytest.raises(SystemExit) as ended:
        main()
    out, err = capsys.readouterr()
    return int(ended.value.code or 0), out, err
