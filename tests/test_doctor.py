"""`ramify doctor`: run for real on this machine, and in environments made to be ill."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from ramify.plan.doctor.environment import environment_findings
from ramify.plan.doctor.findings import Finding, State
from ramify.plan.doctor.imports import Failure, failed_imports
from ramify.plan.doctor.machine import Accelerator, Machine, cpu_share, disk_findings, look, machine_findings, start
from ramify.plan.doctor.packages import package_findings
from ramify.plan.doctor.requirements import Declared, declared, installed

COMMAND = """
import sys, typer
from ramify.cli.doctor import doctor
from ramify.cli.errors import report
app = typer.Typer(pretty_exceptions_enable=False)
app.command()(doctor)
sys.exit(report(lambda: app(standalone_mode=False)))
"""
MACHINE = Machine("2.11.0", None, "cpu", (), 2, 9e9, {"fp32": 60.0}, {"fp32": 100.0}, False)


def doctor(folder: Path, *arguments: str, **environment: str) -> tuple[int, str]:
    """Exit code and standard output of the command in a process and a folder of its own."""
    values = {**os.environ, **environment}
    done = subprocess.run(
        [sys.executable, "-c", COMMAND, *arguments],
        cwd=folder, env=values, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert "Traceback" not in done.stderr
    return done.returncode, done.stdout


def package(folder: Path, name: str, version: str, code: str = "", *requires: str, **more: str) -> Path:
    """A package of one module that is installed in this folder."""
    folder.mkdir(exist_ok=True)
    (folder / f"{name}.py").write_text(code)
    lines = [f"Metadata-Version: 2.4\nName: {name}\nVersion: {version}"]
    lines += [f"{key.replace('_', '-')}: {value}" for key, value in more.items()]
    lines += [f"Requires-Dist: {each}" for each in requires]
    described = folder / f"{name}-{version}.dist-info"
    described.mkdir()
    (described / "METADATA").write_text("\n".join(lines) + "\n")
    (described / "RECORD").write_text(f"{name}.py,,\n")
    return folder


def found(findings: list[Finding], name: str) -> Finding:
    """The finding of that name."""
    return next(each for each in findings if each.name == name)


def states(findings: list[Finding]) -> set[State]:
    return {each.state for each in findings}


def test_a_real_examination_measures_and_tells_everything(tmp_path: Path) -> None:
    code, out = doctor(tmp_path, "--json", HF_TOKEN="hf_unspeakable", CUDA_VISIBLE_DEVICES="")
    told: dict[str, Any] = json.loads(out)
    problems = [each for each in told["findings"] if each["state"] == "problem"]
    assert code == (1 if problems else 0)
    assert told["broken"] is bool(problems)
    assert all(each["advice"] for each in problems)
    by_name = {each["name"]: each["seen"] for each in told["findings"]}
    assert "GFLOP/s" in by_name["products on one core"]
    assert "fp32" in by_name["products on cpu"] and "bf16" in by_name["products on cpu"]
    assert "GB" in by_name["free memory"]
    assert {"Python", "ramify", "torch", "transformers", "peft", "runs", "temporary files"} <= by_name.keys()
    assert "hf_unspeakable" not in out
    assert not list(tmp_path.iterdir())


def test_an_ill_environment_is_told_line_by_line_and_ends_with_1(tmp_path: Path) -> None:
    ill = package(tmp_path / "ill", "torch", "2.11.0", "raise OSError('libtorch_cpu.so: cannot open')")
    package(ill, "rensa", "0.5.0", "import os, signal\nos.kill(os.getpid(), signal.SIGILL)")
    package(ill, "peft", "0.1.0")
    (tmp_path / "here").mkdir()
    code, out = doctor(tmp_path / "here", PYTHONPATH=str(ill), WORLD_SIZE="2", HF_TOKEN="a b", RAMIFY_NATIVE="bf17")
    assert code == 1
    lines = [line for line in out.splitlines() if "problem" in line]
    assert any("torch: cannot be used: OSError: libtorch_cpu.so: cannot open" in line for line in lines)
    assert any("rensa: 0.5.0 is installed and cannot be imported" in line and "SIGILL" in line for line in lines)
    assert any("peft: 0.1.0, and >=" in line for line in lines)
    assert any("WORLD_SIZE=2" in line and "RANK, MASTER_ADDR, MASTER_PORT is not set" in line for line in lines)
    assert any("HF_TOKEN holds spaces" in line for line in lines)
    assert any("'bf17'" in line for line in lines)
    assert "a b" not in out
    assert "problems to mend" in out.splitlines()[-1]


def test_modules_that_end_their_process_do_not_hide_the_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, code in {
        "first_one": "import os\nos._exit(3)",
        "second_one": 'print(\'{"not": "ours"}x\')',
        "third_one": "import sys\nsys.stderr.write('half a line ')\nraise SystemExit('no licence')",
        "fourth_one": "import os, signal\nprint('illegal', flush=True)\nos.kill(os.getpid(), signal.SIGSEGV)",
        "fifth_one": "",
    }.items():
        (tmp_path / f"{name}.py").write_text(code)
    monkeypatch.syspath_prepend(str(tmp_path))
    names = ["first_one", "second_one", "third_one", "fourth_one", "absent_one", "fifth_one"]
    failed = failed_imports(names)
    assert failed.keys() == {"first_one", "third_one", "fourth_one", "absent_one"}
    assert not any(each.late for each in failed.values())
    assert failed["third_one"].reason == "SystemExit: no licence"
    assert "SIGSEGV" in failed["fourth_one"].reason and "illegal" in failed["fourth_one"].reason
    assert failed["absent_one"].reason == "ModuleNotFoundError: No module named 'absent_one'"


def test_a_module_that_never_comes_back_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from ramify.plan.doctor import imports as doctor_imports

    (tmp_path / "slow_one.py").write_text("while True: pass")
    (tmp_path / "fine_one.py").write_text("")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(doctor_imports, "TIMEOUT", 3.0)
    assert failed_imports(["slow_one", "fine_one"])["slow_one"].late


def test_without_torch_it_is_said_and_modules_are_tried_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "torch.py").write_text("raise ImportError('no torch today')")
    (tmp_path / "fine_one.py").write_text("")
    monkeypatch.syspath_prepend(str(tmp_path))
    machine = look(start(["fine_one"]))
    assert machine == Failure("ImportError: no torch today")
    assert failed_imports(["fine_one"]) == {}
    (only,) = machine_findings(machine)
    assert only.state is State.PROBLEM and "no torch today" in only.seen


def test_a_torch_that_takes_long_is_not_called_broken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from ramify.plan.doctor import imports as doctor_imports

    (tmp_path / "torch.py").write_text("while True: pass")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(doctor_imports, "TIMEOUT", 3.0)
    (only,) = machine_findings(look(start([])))
    assert only.state is State.NOTE and "is not known" in only.seen


def test_requirements_are_read_from_metadata(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package(
        tmp_path / "site", "ramify", "9.0", "", "typer>=0.1", "numpy>=99", "rich; python_version < '3'",
        "absent_package>=1; extra == 'ui'", "gguf>=0.1; extra == 'export'", "pytest>=99; extra == 'test'",
        Requires_Python=">=3.99", Provides_Extra="ui\nProvides-Extra: export\nProvides-Extra: test",
    )  # fmt: skip
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    here = installed()
    asked = declared(here)
    assert asked is not None and asked.root is None
    assert [each.name for each in asked.needed] == ["typer", "numpy"]
    findings = package_findings(here, asked)
    assert found(findings, "Python").state is State.PROBLEM
    assert found(findings, "numpy").seen.endswith(">=99 is needed")
    assert found(findings, "numpy").state is State.PROBLEM
    assert found(findings, "ui").state is State.NOTE
    assert found(findings, "ui").advice == "pip install 'ramify[ui]'"
    assert found(findings, "export").state is State.OK
    assert found(findings, "test").state is State.PROBLEM


def test_a_checkout_says_more_than_metadata_written_before(root: Path) -> None:
    here = installed()
    asked = declared(here)
    assert asked is not None
    if asked.root is None:
        pytest.skip("not installed from a checkout")
    assert asked.root.resolve() == root.resolve()
    assert "gguf" in {each.name for each in asked.extras["export"]}
    assert {"gradio", "gguf", "starlette"} <= {each.name for each in asked.extras["chat"]}  # extras of extras
    assert asked.install("ui") == f"pip install -e '{asked.root}[ui]'"


def test_versions_that_exclude_each_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    site = package(tmp_path / "site", "inner_one", "1.0")
    package(site, "used_one", "1.0", "", "inner_one>=2", "absent_two", "other; extra == 'unasked'")
    package(site, "strange_one", "1.0", "", "inner_one==0.9", "absent_three")
    package(site, "unrelated_one", "1.0", "", "absent_four")
    package(site, "ramify", "9.0", "", "used_one")
    monkeypatch.syspath_prepend(str(site))
    here = installed()
    asked = declared(here)
    assert asked is not None
    mine = [each for each in package_findings(here, asked) if "one 1.0" in each.name or "-one" in each.name]
    told = {(each.name, each.seen): each.state for each in mine}
    assert told == {
        ("used-one 1.0", "needs inner_one>=2, 1.0 is installed"): State.PROBLEM,
        ("used-one 1.0", "needs absent_two, it is not installed"): State.PROBLEM,
        ("strange-one 1.0", "needs inner_one==0.9, 1.0 is installed"): State.NOTE,
    }


def test_a_package_that_is_there_twice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package(tmp_path / "left", "typer", "0.99")
    monkeypatch.syspath_prepend(str(tmp_path / "left"))
    here = installed()
    assert here.version("typer") == "0.99"
    asked = Declared("", (), {})
    package(tmp_path / "own", "ramify", "9.0", "", "typer")
    monkeypatch.syspath_prepend(str(tmp_path / "own"))
    here = installed()
    asked = declared(here) or asked
    findings = [each for each in package_findings(here, asked) if "twice" in each.seen]
    assert [each.name for each in findings] == ["typer"]
    assert states(findings) == {State.NOTE}


def test_without_an_installation_it_says_so() -> None:
    findings = package_findings(installed(), None)
    assert found(findings, "ramify").state is State.NOTE


@pytest.mark.parametrize(
    ("values", "name", "state", "seen"),
    [
        ({}, "network", State.OK, "used when"),
        ({"HF_HUB_OFFLINE": "1"}, "network", State.OK, "this machine alone"),
        ({"TRANSFORMERS_OFFLINE": "yes"}, "network", State.NOTE, "HF_HUB_OFFLINE is not"),
        ({"HF_HUB_OFFLINE": "please"}, "HF_HUB_OFFLINE", State.NOTE, "'please' is read as no"),
        ({}, "key", State.OK, "not set"),
        ({"HF_TOKEN": "hf_x"}, "key", State.OK, "never shown"),
        ({"HF_TOKEN": "hf_x\n"}, "key", State.PROBLEM, "line ends"),
        ({"HF_TOKEN": ""}, "key", State.NOTE, "empty"),
        ({"WORLD_SIZE": "1"}, "launcher", None, ""),
        ({"RANK": "1"}, "launcher", State.NOTE, "RANK=1 without WORLD_SIZE"),
        ({"WORLD_SIZE": "two"}, "launcher", State.PROBLEM, "'two'"),
        (
            {"WORLD_SIZE": "4", "RANK": "0", "MASTER_ADDR": "localhost", "MASTER_PORT": "1"},
            "launcher",
            State.NOTE,
            "waits for 3 other",
        ),
        ({"RAMIFY_NATIVE": "none"}, "RAMIFY_NATIVE", State.NOTE, "without measuring"),
        ({"RAMIFY_NATIVE": "int4"}, "RAMIFY_NATIVE", State.PROBLEM, "'int4'"),
        ({"RAMIFY_DEBUG": "1"}, "RAMIFY_DEBUG", State.NOTE, "on"),
        ({"HF_HOME": __file__}, "HF_HOME", State.PROBLEM, "is a file"),
        ({"TMPDIR": "/not/there"}, "TMPDIR", State.NOTE, "not there"),
    ],
)
def test_environment(values: dict[str, str], name: str, state: State | None, seen: str) -> None:
    findings = environment_findings(values)
    told = [each for each in findings if each.name == name]
    assert [each.state for each in told] == ([] if state is None else [state])
    assert all(seen in each.seen for each in told)
    assert all(each.advice for each in findings if each.state is State.PROBLEM)
    assert not any("hf_x" in each.seen + (each.advice or "") for each in findings)


def test_unknown_types_are_those_that_the_measurement_refuses(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    from ramify.base.errors import ConfigError
    from ramify.model.rates import native

    for text in ("bf16", "bf16, fp16", "none", "int4", "bf16,,", "fp32"):
        monkeypatch.setenv("RAMIFY_NATIVE", text)
        problem = found(environment_findings({"RAMIFY_NATIVE": text}), "RAMIFY_NATIVE").state is State.PROBLEM
        try:
            native(torch.bfloat16)
            refused = False
        except ConfigError:
            refused = True
        assert problem == refused, text


def test_what_is_said_of_accelerators(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from dataclasses import replace

    from ramify.plan.doctor import machine as doctor_machine

    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setattr(doctor_machine, "_DRIVER", tmp_path / "version")
    assert found(machine_findings(MACHINE), "GPU").state is State.OK
    (tmp_path / "version").write_text("NVRM version: 470.1\nGCC\n")
    assert found(machine_findings(MACHINE), "GPU").state is State.NOTE
    old = found(machine_findings(replace(MACHINE, built_for="CUDA 13.0")), "GPU")
    assert old.state is State.PROBLEM and "470.1" in old.seen
    gpu = replace(MACHINE, device="cuda:0", accelerators=(Accelerator("cuda:0", "H", 8e10, 7e10),), native_bf16=True)
    findings = machine_findings(gpu)
    assert found(findings, "cuda:0").seen == "H, 70.00 GB of 80.00 GB free"
    assert "GPU" not in {each.name for each in findings}
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert found(machine_findings(MACHINE), "GPU").state is State.NOTE


def test_little_memory_and_few_cores_are_told(tmp_path: Path) -> None:
    from dataclasses import replace

    poor = machine_findings(replace(MACHINE, free=1e9, threads=0))
    assert found(poor, "free memory").state is State.NOTE
    assert found(poor, "processor").state is State.NOTE
    assert found(machine_findings(replace(MACHINE, free=None)), "free memory").state is State.OK
    (tmp_path / "cpu.max").write_text("150000 100000\n")
    assert cpu_share(tmp_path) == 1.5
    (tmp_path / "cpu.max").write_text("max 100000\n")
    assert cpu_share(tmp_path) is None
    assert cpu_share(tmp_path / "none") is None


def test_folders_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "runs").write_text("a file")
    assert found(disk_findings(tmp_path / "runs"), "runs").state is State.PROBLEM
    later = found(disk_findings(tmp_path / "not" / "yet"), "runs")
    assert "GB free" in later.seen
    assert not (tmp_path / "not").exists()


@contextmanager
def nobody(folder: Path) -> Iterator[None]:
    """Inside the block the folder may not be looked into, not even by root's tests."""
    folder.chmod(0)
    is_root = os.geteuid() == 0
    if is_root:
        os.seteuid(65534)
    try:
        yield
    finally:
        if is_root:
            os.seteuid(0)
        folder.chmod(0o700)


@pytest.mark.skipif(not hasattr(os, "geteuid"), reason="without users, no mode closes a folder: chmod does nothing")
def test_folders_that_cannot_be_looked_into_are_findings(tmp_path: Path) -> None:
    """Another user's cache, named in the environment of this one."""
    closed = tmp_path / "closed"
    closed.mkdir()
    with nobody(closed):
        assert found(disk_findings(closed / "runs"), "runs").seen
        told = found(environment_findings({"HF_HOME": str(closed / "cache"), "TMPDIR": str(closed / "tmp")}), "TMPDIR")
    assert told.state is State.NOTE and "another folder is taken" in told.seen
