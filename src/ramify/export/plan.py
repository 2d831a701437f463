"""What an export will write, checked as far as it can be before a weight is read."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any

from ramify.base.config import Prompting
from ramify.base.errors import ConfigError, ModelError, RunError, unknown
from ramify.base.runs import EXPORT, is_run
from ramify.evaluate.settings import evaluation_config
from ramify.export.gguf.families import read_family
from ramify.export.gguf.official import SCRIPT
from ramify.export.gguf.package import require_gguf
from ramify.export.merge import base_folder, parameters
from ramify.export.tokenizer import has_template
from ramify.export.whole import require_space
from ramify.model.source import Source, resolve
from ramify.sample.llamacpp.quantize import KINDS, check_backend

DIRECT = ("f32", "f16", "bf16", "q8_0")
"""Kinds that are written here; the others are made by llama.cpp of the f16 file."""
DTYPES = ("bf16", "fp16", "fp32")
BITS = {"f32": 32.0, "fp32": 32.0, "f16": 16.0, "fp16": 16.0, "bf16": 16.0, "q8_0": 8.5, "q6_k": 6.6, "q5_k_m": 5.7}
QUANTS = ("f16", "q8_0")
"""Kinds of GGUF files where none are named."""
DTYPE = "bf16"
"""Type of a merged folder where none is named."""
_OTHER_BITS = 5.5
"""About so many bits a weight, for the check of free disk: small models keep some tensors in more."""


class Target(Enum):
    """What an export can be."""

    MERGED = "merged"  # a Transformers folder
    GGUF = "gguf"  # files for llama.cpp and what is built on it
    OLLAMA = "ollama"  # GGUF files with a Modelfile


@dataclass(frozen=True)
class Wish:
    """What was asked for.

    Attributes:
        source: a run, a model or adapter folder, a hub id, or nano.
        out: folder of the export.
        to: what to make.
        quants: kinds of GGUF files; None: `QUANTS`.
        dtype: type of the merged folder; None: `DTYPE`.
        adapter_only: write the adapter as a GGUF of its own instead of merging it.
        llama_cpp: a checkout of llama.cpp, whose converter is used.
        verify: whether parity is measured.
        score: problems of the run's task that every stage answers; 0: none.
        name: what files are called; None: after the source.
        overwrite: replace the export in the folder.
    """

    source: str
    out: Path
    to: tuple[Target, ...] = (Target.GGUF,)
    quants: tuple[str, ...] | None = None
    adapter: str | None = None
    dtype: str | None = None
    adapter_only: bool = False
    llama_cpp: Path | None = None
    verify: bool = True
    score: int = 0
    name: str | None = None
    overwrite: bool = False


@dataclass(frozen=True)
class Plan:
    """A wish that can be fulfilled.

    Attributes:
        parts: where base weights and adapter lie.
        prompting: how the model is prompted: as it was trained.
        sample: length of completions and stop strings of a run; empty for anything else.
        parameters: of the base model, as far as it is on this machine.
        name: what files are called.
        dtype: type of the merged folder.
        quants: kinds of GGUF files; empty: none are made.
        notes: what the user should know before anything is written.
    """

    wish: Wish
    parts: Source
    prompting: Prompting
    sample: Mapping[str, Any]
    parameters: int
    name: str
    dtype: str = DTYPE
    quants: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def makes_gguf(self) -> bool:
        """Whether whole GGUF files are made."""
        return bool(self.quants)

    def file(self, kind: str) -> str:
        """Name of a GGUF file."""
        return f"{self.name}-{kind.upper()}.gguf"


def make_plan(wish: Wish) -> Plan:
    """Check what was asked for.

    Raises:
        ConfigError: an unknown kind or type, settings that contradict each other or would do nothing, a missing
            package.
        ModelError: the source is no model.
        RunError: the folder cannot be written to.
    """
    parts = resolve(wish.source, wish.adapter)
    if wish.adapter_only:
        _check_adapter_only(wish, parts)
    quants, dtype = _quants(wish), _dtype(wish)
    name = wish.name or _name(wish.source)
    if not re.fullmatch(r"[\w.+-]{1,80}", name):
        raise ConfigError(f"name {name!r}: letters, digits and . _ + - are allowed", hint="--name NAME")
    if wish.score and not wish.verify:
        raise ConfigError("--score is a column of the parity table, and --no-verify leaves that out")
    if wish.llama_cpp is not None:
        _check_checkout(wish.llama_cpp, quants)
    _check_out(wish)
    base = base_folder(parts)
    if quants and base is not None and wish.llama_cpp is None:
        read_family(base)
    config = evaluation_config(wish.source)
    prompting, notes = _prompting(config.prompt, parts)
    drawn = config.sample.model_dump(mode="json", include={"max_new_tokens", "stop"}) if is_run(wish.source) else {}
    return Plan(wish, parts, prompting, drawn, parameters(parts), name, dtype, quants, notes)


def _check_adapter_only(wish: Wish, parts: Source) -> None:
    if parts.adapter is None:
        raise ConfigError(f"{wish.source} has no adapter", hint="leave --adapter-only out")
    if set(wish.to) != {Target.GGUF}:
        raise ConfigError("--adapter-only writes a GGUF file and nothing else", hint="--to gguf, or leave it out")
    idle = "--score" if wish.score else "--llama-cpp" if wish.llama_cpp is not None else None
    if idle is not None:
        raise ConfigError(f"{idle} does nothing with --adapter-only", hint=f"leave {idle} out")
    if base_folder(parts) is None:
        raise ModelError(
            f"{parts.base} is not on this machine: its configuration says what the adapter is for",
            hint="--adapter-only needs it fetched; any command that loads it does that",
        )


def _check_checkout(checkout: Path, quants: Sequence[str]) -> None:
    if not quants:
        raise ConfigError("--llama-cpp does nothing without --to gguf or ollama", hint="leave --llama-cpp out")
    if not (checkout / SCRIPT).is_file():
        raise ConfigError(f"{checkout}: no {SCRIPT} there", hint="--llama-cpp takes a checkout")


def _prompting(prompting: Prompting, parts: Source) -> tuple[Prompting, tuple[str, ...]]:
    """How the model is prompted: plainly where it should be by its own template and has none."""
    if prompting.chat_template != "model" or has_template(parts):
        return prompting, ()
    note = f"{parts.base} has no chat template: its files get the plain one, question, space, answer"
    return prompting.model_copy(update={"chat_template": "plain"}), (note,)


def _dtype(wish: Wish) -> str:
    if wish.dtype is None:
        return DTYPE
    if Target.MERGED not in wish.to:
        raise ConfigError("--dtype is the type of the merged folder, which is not made", hint="--to merged, or --quant")
    if wish.dtype not in DTYPES:
        raise ConfigError(unknown("type", wish.dtype, DTYPES))
    return wish.dtype


def _quants(wish: Wish) -> tuple[str, ...]:
    if not {Target.GGUF, Target.OLLAMA} & set(wish.to):
        if wish.quants is not None:
            raise ConfigError("--quant is of GGUF files, which are not made", hint="--to gguf or ollama, or --dtype")
        return ()
    quants = tuple(dict.fromkeys(each.lower() for each in (QUANTS if wish.quants is None else wish.quants)))
    for kind in quants:
        if kind not in (*DIRECT, *KINDS):
            raise ConfigError(unknown("quantisation", kind, {*DIRECT, *KINDS}))
    if not quants:
        raise ConfigError("no quantisation given", hint="--quant f16,q8_0,q4_k_m")
    unusual = [kind for kind in quants if kind not in DIRECT]
    if wish.adapter_only and unusual:
        raise ConfigError(f"an adapter is not written as {unusual[0]}", hint=f"--quant {','.join(DIRECT)}, or fewer")
    if wish.llama_cpp is None:
        require_gguf()
    if unusual or (wish.verify and not wish.adapter_only):
        check_backend()
    return quants


def _check_out(wish: Wish) -> None:
    out = wish.out
    if out.exists() and not out.is_dir():
        raise RunError(f"{out}: is a file, a folder is needed", hint="choose another one with --out")
    if Path.cwd().is_relative_to(out.resolve()):
        raise RunError(f"{out}: is where you are, and an export takes the place of its folder", hint="--out FOLDER")
    if not out.is_dir() or not any(out.iterdir()):
        return
    if not (out / EXPORT).is_file():
        raise RunError(f"{out}: holds something that is not an export", hint="choose another folder with --out")
    if not wish.overwrite:
        raise RunError(f"{out}: holds an export already", hint="--overwrite replaces it")


def check_disk(folder: Path, weights: int, kinds: tuple[str, ...]) -> None:
    """Refuse what would fill the disk.

    Args:
        weights: parameters of the model.
        kinds: of all files and folders that are on the disk at the same time.

    Raises:
        RunError: see `require_space`.
    """
    needed = sum(weights * BITS.get(kind, _OTHER_BITS) / 8 for kind in kinds) * 1.02
    require_space(folder, round(needed))


def _name(source: str) -> str:
    path = Path(source)
    name = path.resolve().name if is_run(path) or path.is_dir() else source.rpartition("/")[2]
    return re.sub(r"[^\w.+-]+", "-", name).strip("-") or "model"
