"""Whether what is installed is what Ramify asks for: Python, packages, extras, and versions that exclude each other."""

from __future__ import annotations

import platform
from collections.abc import Iterator, Mapping, Sequence

from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

from ramify.plan.doctor.findings import Finding, note, ok, problem
from ramify.plan.doctor.requirements import NAME, Declared, Installed, requirements_of

_PYTHON, _PACKAGES, _EXTRAS = "Python", "packages", "extras"
_SHOWN = ("torch", "transformers", "peft")
"""Packages that decide results, which are shown one by one; the others are counted."""
_OWN_WORK = ("bench", "check", "dev", "test")
"""Extras for work on Ramify itself."""


def package_findings(found: Installed, asked: Declared | None) -> list[Finding]:
    """Findings about Python and everything that is installed.

    Args:
        asked: what Ramify asks for; None where it is run without being installed.
    """
    if asked is None:
        advice = "pip install -e . in its folder: what it needs is read from there"
        return [ok(_PYTHON, "Python", _python()), note(_PACKAGES, NAME, "not installed, run from a folder", advice)]
    findings = [_python_finding(asked), *_needed(found, asked)]
    findings += [_extra(name, found, asked) for name in asked.extras]
    return findings + list(_conflicts(found, asked))


def extras_present(found: Installed, asked: Declared) -> dict[str, list[Requirement]]:
    """What is installed of each extra for users: name -> requirements that are there."""
    return {
        name: [each for each in own if found.version(each.name) is not None]
        for name, own in asked.extras.items()
        if name not in _OWN_WORK
    }


def _python() -> str:
    return f"{platform.python_version()} ({platform.python_implementation()}, {platform.platform()})"


def _python_finding(asked: Declared) -> Finding:
    if SpecifierSet(asked.python).contains(platform.python_version(), prereleases=True):
        return ok(_PYTHON, "Python", _python())
    return problem(_PYTHON, "Python", _python(), f"Ramify runs on Python {asked.python}: make an environment with it")


def _needed(found: Installed, asked: Declared) -> Iterator[Finding]:
    """What Ramify cannot do without."""
    yield ok(_PACKAGES, NAME, f"{found.version(NAME)}" + ("" if asked.root is None else f" (from {asked.root})"))
    if asked.is_old:
        advice = f"pip install -e '{asked.root}' writes it anew"
        yield note(_PACKAGES, NAME, "its metadata is older than its pyproject.toml, which is read instead", advice)
    fitting = 0
    for each in asked.needed:
        version = found.version(each.name)
        if not found.fits(each):
            yield _unfit(_PACKAGES, each, version)
        elif each.name in _SHOWN:
            yield ok(_PACKAGES, each.name, f"{version}")
        else:
            fitting += 1
    if fitting:
        yield ok(_PACKAGES, "others that are needed", f"{fitting}, all of versions that fit")


def _unfit(area: str, asked: Requirement, version: str | None) -> Finding:
    seen = "not installed" if version is None else f"{version}, and {asked.specifier} is needed"
    return problem(area, asked.name, seen, f"pip install '{asked.name}{asked.specifier}'")


def _extra(name: str, found: Installed, asked: Declared) -> Finding:
    own = asked.extras[name]
    missing = [each.name for each in own if found.version(each.name) is None]
    old = [f"{each.name} {found.version(each.name)}" for each in own if each.name not in missing]
    unfit = [each for each in own if each.name not in missing and not found.fits(each)]
    if unfit:
        said = "; ".join(f"{each.name} {found.version(each.name)}, and {each.specifier} is needed" for each in unfit)
        return problem(_EXTRAS, name, said, asked.install(name))
    if not missing:
        return ok(_EXTRAS, name, ", ".join(old) if len(old) <= 4 else f"{len(old)} packages")
    seen = f"missing: {', '.join(missing)}"
    if name in _OWN_WORK:
        return ok(_EXTRAS, name, f"{seen} (for work on Ramify itself: {asked.install(name)})")
    return note(_EXTRAS, name, seen, asked.install(name))


def _conflicts(found: Installed, asked: Declared) -> Iterator[Finding]:
    """Packages whose own requirements are not met, as far as they are part of what Ramify uses or change that."""
    used = _used(found, asked)
    for name, distribution in sorted(found.found.items()):
        if name == NAME:
            continue
        for each in requirements_of(distribution, used.get(name, ())):
            target = canonicalize_name(each.name)
            version = found.version(target)
            if found.fits(each) or (version is None and name not in used) or not {name, target} & used.keys():
                continue
            yield _conflict(f"{name} {distribution.version}", each, version, name in used)
    for name, (first, second) in found.twice.items():
        if name in used:
            advice = f"pip uninstall {name} until it is gone, then install it again"
            yield note(_PACKAGES, name, f"installed twice, {first} and {second}; the first is imported", advice)


def _conflict(who: str, asked: Requirement, version: str | None, is_used: bool) -> Finding:
    """One requirement that is not met: of a package in use it is a problem, of another one worth knowing."""
    has = f"{version} is installed" if version is not None else "it is not installed"
    seen = f"needs {asked.name}{asked.specifier}, {has}"
    if is_used:
        return problem(_PACKAGES, who, seen, f"pip install '{asked.name}{asked.specifier}'")
    # Libraries look for optional ones and fail with them: an old torchvision stops Transformers.
    return note(_PACKAGES, who, seen, f"pip install -U {who.split()[0]}, or uninstall it: Ramify does not use it")


def _used(found: Installed, asked: Declared) -> Mapping[str, frozenset[str]]:
    """Everything that Ramify's installed parts lead to: name -> extras of it that are asked for."""
    used: dict[str, frozenset[str]] = {}
    queue: list[Requirement] = [*asked.needed, *(each for own in extras_present(found, asked).values() for each in own)]
    while queue:
        each = queue.pop()
        name, extras = canonicalize_name(each.name), frozenset(each.extras)
        if found.version(name) is None or (name in used and extras <= used[name]):
            continue
        used[name] = used.get(name, frozenset()) | extras
        queue += _next(found, name, used[name])
    return used


def _next(found: Installed, name: str, extras: frozenset[str]) -> Sequence[Requirement]:
    return requirements_of(found.found[name], extras)
