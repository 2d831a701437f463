"""Environment variables that change what Ramify does: offline switches, the hub's folders and key, launchers, types."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path

from ramify.plan.doctor.findings import Finding, note, ok, problem

_HUB, _LAUNCH, _OTHER = "hub", "processes", "environment"
_TRUE, _FALSE = ("1", "ON", "YES", "TRUE"), ("", "0", "OFF", "NO", "FALSE")
"""What the hub's library reads as yes; what a person means by no."""
_SWITCHES = ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "HF_DATASETS_OFFLINE")
_FOLDERS = ("HF_HOME", "HF_HUB_CACHE", "HF_DATASETS_CACHE", "TMPDIR")
_RANKS = ("RANK", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")
_TYPES = ("fp32", "bf16", "fp16")


def environment_findings(values: Mapping[str, str] | None = None) -> list[Finding]:
    """Findings about environment variables; None: those of this process. Keys are never shown."""
    given = os.environ if values is None else values
    return [*_offline(given), *_folders(given), _key(given), *_launcher(given), *_own(given)]


def _offline(given: Mapping[str, str]) -> Iterator[Finding]:
    on = [name for name in _SWITCHES if given.get(name, "").upper() in _TRUE]
    for name in _SWITCHES:
        value = given.get(name, "")
        if value.upper() not in (*_TRUE, *_FALSE):
            yield note(_HUB, name, f"{value!r} is read as no", f"{name}=1 switches it on")
    if "HF_HUB_OFFLINE" in on:
        yield ok(_HUB, "network", "HF_HUB_OFFLINE is on: models and data come from this machine alone")
    elif on:
        seen = f"{', '.join(on)} is on and HF_HUB_OFFLINE is not"
        yield note(_HUB, "network", seen, "HF_HUB_OFFLINE=1 keeps everything off the network")
    else:
        yield ok(_HUB, "network", "used when a model or data set of the hub is named; HF_HUB_OFFLINE=1 forbids it")


def _folders(given: Mapping[str, str]) -> Iterator[Finding]:
    for name in _FOLDERS:
        value = given.get(name)
        if not value:
            continue
        place = Path(value).expanduser()
        if os.path.isfile(place):
            yield problem(_HUB, name, f"{value} is a file", f"{name} has to name a folder")
        elif name == "TMPDIR" and not os.path.isdir(place):
            yield note(_HUB, name, f"{value} is not there, another folder is taken", f"make it, or unset {name}")
        else:
            yield ok(_HUB, name, value)


def _key(given: Mapping[str, str]) -> Finding:
    name = next((each for each in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN") if each in given), None)
    if name is None:
        return ok(_HUB, "key", "HF_TOKEN is not set; only gated and private models need one")
    value = given[name]
    if not value.strip():
        return note(_HUB, "key", f"{name} is set and empty", f"unset {name}")
    if value != value.strip() or any(not letter.isprintable() or letter.isspace() for letter in value):
        return problem(_HUB, "key", f"{name} holds spaces or line ends", "set it again, without them")
    return ok(_HUB, "key", f"{name} is set (it is never shown)")


def _launcher(given: Mapping[str, str]) -> Iterator[Finding]:
    """Variables by which `torchrun` tells a process that it is one of several; left over, a run waits for others."""
    size = given.get("WORLD_SIZE")
    if size is None:
        left = [name for name in _RANKS[:2] if name in given]
        if left:
            seen = f"{', '.join(f'{name}={given[name]}' for name in left)} without WORLD_SIZE"
            yield note(_LAUNCH, "launcher", seen, f"unset {' '.join(left)}: only process 0 speaks and writes")
        return
    if not size.isdecimal() or int(size) < 1:
        yield problem(_LAUNCH, "launcher", f"WORLD_SIZE={size!r} is not a number of processes", "unset WORLD_SIZE")
    elif int(size) > 1:
        missing = [name for name in _RANKS if name != "LOCAL_RANK" and name not in given]
        lacks = f", and {', '.join(missing)} is not set" if missing else ""
        seen = f"WORLD_SIZE={size}{lacks}: a run waits for {int(size) - 1} other processes"
        advice = "unset WORLD_SIZE, or start with torchrun (`ramify train --print-launch` shows how)"
        yield (problem if missing else note)(_LAUNCH, "launcher", seen, advice)


def _own(given: Mapping[str, str]) -> Iterator[Finding]:
    types = given.get("RAMIFY_NATIVE", "").strip()
    if types:
        named = [] if types == "none" else [each.strip() for each in types.split(",")]
        unknown = [each for each in named if each not in _TYPES]
        if unknown:
            seen = f"{types!r}: unknown type {unknown[0]!r}"
            yield problem(_OTHER, "RAMIFY_NATIVE", seen, f"none, or of {', '.join(_TYPES)}, with commas; or unset it")
        else:
            yield note(_OTHER, "RAMIFY_NATIVE", f"{types}: taken as fast, without measuring", "unset it to measure")
    if given.get("RAMIFY_DEBUG"):
        yield note(_OTHER, "RAMIFY_DEBUG", "on: errors print where they come from", "unset it for one line each")
