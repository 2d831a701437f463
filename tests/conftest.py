"""What all tests share: no network, reproducible property tests, and the optional folder of shared data."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
from hypothesis import settings

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

settings.register_profile("reproducible", deadline=None, derandomize=True)
settings.load_profile("reproducible")

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def root() -> Path:
    """The project's root."""
    return ROOT


@pytest.fixture(scope="session")
def compiler() -> str:
    """A C++ compiler. A user's machine may have none; what is compiled here is held to the same results uncompiled."""
    found = shutil.which(os.environ.get("CXX", "g++"))
    if found is None:
        pytest.skip("no C++ compiler here (set CXX)")
    return found


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of shared data sets and tokenizers; tests that need it are skipped where it is absent."""
    folder = Path(os.environ.get("RAMIFY_SHARED", ROOT.parent / "shared"))
    if not folder.is_dir():
        pytest.skip("no shared data here (set RAMIFY_SHARED)")
    return folder


@pytest.fixture(scope="session")
def chromium() -> str:
    """A real browser."""
    found = next((path for name in BROWSERS if (path := shutil.which(name))), None)
    if found is None:
        pytest.skip("no Chromium here (.ci/tools installs it on Debian and Ubuntu)")
    return found


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """Where screenshots lie, to be looked at afterwards."""
    folder = Path(os.environ.get("RAMIFY_ARTEFACTS", tmp_path / "artefacts"))
    folder.mkdir(parents=True, exist_ok=True)
    return folder
