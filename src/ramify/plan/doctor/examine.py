"""Whether this machine can do what Ramify does: everything is tried or read, nothing is downloaded.

torch is asked in a process of its own, and so is every optional package, so that a broken one is a line here and not
the end of the examination.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from ramify.plan.doctor.environment import environment_findings
from ramify.plan.doctor.findings import Finding, State, count, note, ok, problem
from ramify.plan.doctor.imports import Failure, Trial, failed_imports
from ramify.plan.doctor.machine import Machine, disk_findings, look, machine_findings, start
from ramify.plan.doctor.packages import extras_present, package_findings
from ramify.plan.doctor.requirements import Declared, Installed, declared, installed

_IMPORTS = "imports"
_WITH_TORCH = ("transformers", "peft", "bitsandbytes")
"""Modules that load torch: tried by one process, so that it is loaded once."""


@dataclass(frozen=True)
class Examination:
    """What was found, in the order it is shown, and the seconds it took."""

    findings: tuple[Finding, ...]
    seconds: float

    @property
    def is_broken(self) -> bool:
        """Whether something has to be mended."""
        return count(self.findings, State.PROBLEM) > 0

    @property
    def verdict(self) -> str:
        """One sentence on all of it."""
        problems, notes = (count(self.findings, state) for state in (State.PROBLEM, State.NOTE))
        told = f"{notes} {'note' if notes == 1 else 'notes'}"
        if problems:
            return f"{problems} {'problem' if problems == 1 else 'problems'} to mend, {told}"
        return f"ready, {told}"


def examine(runs: Path = Path("runs")) -> Examination:
    """Look at Python, packages, torch, memory, disks and the environment.

    Args:
        runs: where runs are to go.
    """
    began = time.perf_counter()
    found = installed()
    asked = declared(found)
    modules = {} if asked is None else _modules(found, asked)
    trial = start([each for each in modules if each in _WITH_TORCH])
    packages = package_findings(found, asked)  # while torch is loaded; nothing else runs while rates are taken
    torch = look(trial)
    failed = _failed(list(modules), trial if isinstance(torch, Machine) else None)
    findings = [
        *packages,
        *_imports(found, modules, failed),
        *machine_findings(torch),
        *disk_findings(runs),
        *environment_findings(),
    ]
    return Examination(tuple(findings), time.perf_counter() - began)


def _modules(found: Installed, asked: Declared) -> dict[str, str]:
    """What Ramify imports itself: module -> package, as far as it is installed. torch is tried by itself."""
    names = {each.name for own in extras_present(found, asked).values() for each in own}
    names |= {each.name for each in asked.needed if each.name != "torch" and found.version(each.name) is not None}
    return {module: name for name in sorted(names) if (module := found.modules(name)) is not None}


def _failed(modules: Sequence[str], trial: Trial | None) -> dict[str, Failure]:
    """Module -> why it was not imported; `trial` tries those with torch while the others are tried."""
    with ThreadPoolExecutor(1) as pool:
        others = pool.submit(failed_imports, [each for each in modules if each not in _WITH_TORCH])
        return {**failed_imports([each for each in modules if each in _WITH_TORCH], trial), **others.result()}


def _imports(found: Installed, modules: Mapping[str, str], failed: Mapping[str, Failure]) -> Iterator[Finding]:
    """Packages that are installed and cannot be imported, or take so long that it was given up."""
    for module, failure in failed.items():
        name = modules[module]
        seen, advice = f"{found.version(name)} is installed", f"pip install --force-reinstall {name}"
        if failure.late:
            again = "ramify doctor again, when nothing else runs"
            yield note(_IMPORTS, name, f"{seen}; whether it can be imported is not known: {failure.reason}", again)
        else:
            yield problem(_IMPORTS, name, f"{seen} and cannot be imported: {failure.reason}", advice)
    if modules:
        working = len(modules) - len(failed)
        yield ok(_IMPORTS, "packages that import", f"{working} of {len(modules)} that are used directly")
