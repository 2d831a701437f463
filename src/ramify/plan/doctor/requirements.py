"""What Ramify asks of an installation, and what is installed: read from metadata, so that there is no second list.

Of a checkout that was installed with `pip install -e` its pyproject.toml counts: metadata is written once, at
installation, and a checkout goes on.
"""

from __future__ import annotations

import json
import tomllib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from importlib import metadata
from pathlib import Path
from urllib.parse import unquote, urlparse

from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name

NAME = "ramify"


@dataclass(frozen=True)
class Installed:
    """Everything installed that this Python finds: name -> distribution, the first of each name, as imports do.

    Attributes:
        twice: names that are found with two different versions, with both.
    """

    found: Mapping[str, metadata.Distribution]
    twice: Mapping[str, tuple[str, str]]

    def version(self, name: str) -> str | None:
        """Of a package; None: it is not installed."""
        distribution = self.found.get(canonicalize_name(name))
        return None if distribution is None else distribution.version

    def fits(self, requirement: Requirement) -> bool:
        """Whether what is installed is what is asked for."""
        version = self.version(requirement.name)
        return version is not None and requirement.specifier.contains(version, prereleases=True)

    def modules(self, name: str) -> str | None:
        """The module of a package, by which it is imported; None where it has none."""
        own = canonicalize_name(name).replace("-", "_")
        found = self._modules.get(canonicalize_name(name), [])
        public = [each for each in found if not each.startswith("_")]
        return own if own in found else min(public, key=len, default=None)

    @cached_property
    def _modules(self) -> dict[str, list[str]]:
        by_name: dict[str, list[str]] = {}
        for module, names in metadata.packages_distributions().items():
            for name in names:
                by_name.setdefault(canonicalize_name(name), []).append(module)
        return by_name


def installed() -> Installed:
    """What is installed here. A damaged entry, without a name or a version, counts as absent."""
    found: dict[str, metadata.Distribution] = {}
    twice: dict[str, tuple[str, str]] = {}
    for distribution in metadata.distributions():
        said = distribution.metadata
        if said is None or not said["Name"] or not said["Version"]:
            continue
        name = canonicalize_name(said["Name"])
        first = found.setdefault(name, distribution)
        if first.version != distribution.version:
            twice.setdefault(name, (first.version, distribution.version))
    return Installed(found, twice)


@dataclass(frozen=True)
class Declared:
    """What Ramify asks for.

    Attributes:
        python: versions of Python, as in ">=3.11,<3.14".
        needed: what it cannot do without; extras: what each optional part needs besides.
        root: the checkout it was installed from with `pip install -e`; None: it was installed as a package.
        is_old: whether the installed metadata says otherwise than the checkout.
    """

    python: str
    needed: tuple[Requirement, ...]
    extras: Mapping[str, tuple[Requirement, ...]]
    root: Path | None = None
    is_old: bool = False

    def install(self, extra: str) -> str:
        """The command that adds an extra."""
        return f"pip install '{NAME}[{extra}]'" if self.root is None else f"pip install -e '{self.root}[{extra}]'"


def declared(found: Installed) -> Declared | None:
    """What this installation of Ramify asks for; None where it is not installed."""
    distribution = found.found.get(NAME)
    if distribution is None:
        return None
    extras = distribution.metadata.get_all("Provides-Extra") or []
    lines = [Requirement(line) for line in distribution.requires or []]
    said = Declared(
        python=str(distribution.metadata["Requires-Python"] or ""),
        needed=tuple(_without(lines, None)),
        extras={name: tuple(_without(lines, name)) for name in sorted(extras)},
    )
    root = _checkout(distribution)
    return said if root is None else _of_checkout(root, said)


def applies(requirement: Requirement, extras: Iterable[str] = ("",)) -> bool:
    """Whether a requirement counts on this machine, for any of these extras."""
    return requirement.marker is None or any(requirement.marker.evaluate({"extra": each}) for each in extras)


def requirements_of(distribution: metadata.Distribution, extras: Iterable[str] = ()) -> list[Requirement]:
    """What a package asks for here. A line that nobody can read is left out: it is not ours to judge."""
    found = []
    for line in distribution.requires or []:
        with suppress(InvalidRequirement):
            found.append(Requirement(line))
    return [each for each in found if applies(each, ("", *extras))]


def _without(lines: Sequence[Requirement], extra: str | None) -> Iterator[Requirement]:
    """The requirements of an extra, or those of none, that count on this machine."""
    for each in lines:
        bare = applies(each)
        if bare if extra is None else not bare and applies(each, (extra,)):
            yield each


def _checkout(distribution: metadata.Distribution) -> Path | None:
    """The folder of an installation by `pip install -e`."""
    said = distribution.read_text("direct_url.json")
    if not said:
        return None
    with suppress(ValueError, KeyError, TypeError):
        origin = json.loads(said)
        if origin["dir_info"]["editable"]:
            root = Path(unquote(urlparse(origin["url"]).path))
            return root if (root / "pyproject.toml").is_file() else None
    return None


def _of_checkout(root: Path, said: Declared) -> Declared:
    """What pyproject.toml asks for; `said`, what the metadata does, where it cannot be read."""
    try:
        project = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["project"]
        lines = {name: [Requirement(each) for each in own] for name, own in project["optional-dependencies"].items()}
        needed = tuple(each for each in map(Requirement, project["dependencies"]) if applies(each))
    except (OSError, ValueError, KeyError):
        return said
    extras = {name: tuple(_unfolded(name, lines)) for name in sorted(lines)}
    python = str(project.get("requires-python", said.python))
    is_old = {str(each) for each in needed} != {str(each) for each in said.needed} or set(extras) != set(said.extras)
    return Declared(python, needed, extras, root, is_old)


def _unfolded(name: str, lines: Mapping[str, Sequence[Requirement]]) -> Iterator[Requirement]:
    """The requirements of an extra, those of the extras that it names in their place."""
    for each in lines.get(name, ()):
        if canonicalize_name(each.name) == NAME:
            for other in sorted(each.extras):
                yield from _unfolded(other, lines)
        elif applies(each):
            yield each
