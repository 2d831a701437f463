"""An export, from the source to the folder: merge, write, quantise, read back, compare, publish.

    OUT/
      export.json     source, settings, versions, files with size and hash, parity
      README.md       the model card          parity.md   the table
      merged/         a Transformers folder                                       (--to merged)
      tokenizer/      tokenizer and template that the GGUF files were made with   (--to gguf, ollama)
      NAME-Q8_0.gguf …                         Modelfile                          (--to ollama)

Everything is written to a folder beside OUT, which takes OUT's place when it is complete: OUT is whole or not there.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ramify.base.progress import SILENT, Progress
from ramify.base.records import sha256_file, to_plain, write_json, write_text
from ramify.base.runs import EXPORT, versions
from ramify.export.card import card, parity_table
from ramify.export.gguf.adapter import write_adapter_gguf
from ramify.export.gguf.official import convert
from ramify.export.gguf.writer import GgufReport, write_gguf
from ramify.export.memory import fits
from ramify.export.merge import base_folder, merge, stage
from ramify.export.modelfile import modelfile, recognise
from ramify.export.parity import ParityRow
from ramify.export.plan import DIRECT, Plan, Target, Wish, check_disk, make_plan
from ramify.export.stages import Written, measure, trial_of
from ramify.export.tokenizer import renderer_of, save_tokenizer
from ramify.export.unmerged import link, unmerged
from ramify.export.whole import whole_folder
from ramify.prompts.renderer import Renderer
from ramify.sample.llamacpp.quantize import quantize


@dataclass(frozen=True)
class Export:
    """A finished export.

    Attributes:
        folder: where it is.
        rows: the parity table; empty when it was not measured.
        notes: what the user should know about the files.
    """

    folder: Path
    rows: tuple[ParityRow, ...]
    notes: tuple[str, ...]

    @property
    def failures(self) -> list[str]:
        """`stage: reason` for each limit that was not kept."""
        return [f"{row.stage}: {each}" for row in self.rows for each in row.failures]


def export(wish: Wish, progress: Progress = SILENT) -> Export:
    """Make what was asked for.

    Returns:
        The export; it is on disk also when its parity failed, marked as such.

    Raises:
        ConfigError, ModelError, RunError: it cannot be made; nothing is left behind.
    """
    plan = make_plan(wish)
    renderer = renderer_of(plan.parts, plan.prompting)
    trial = trial_of(plan) if wish.verify and not wish.adapter_only else None
    whole = _whole(plan, renderer)
    check_disk(wish.out, plan.parameters, _kinds_on_disk(plan, whole))
    with whole_folder(wish.out, overwrite=wish.overwrite) as folder:
        work = _Work(plan, renderer, whole, folder, progress)
        written = work.write()
        rows = () if trial is None else tuple(measure(plan, trial, renderer, written, folder, progress))
        shutil.rmtree(folder / _SCRATCH, ignore_errors=True)
        _describe(plan, folder, rows, work.notes)
    return Export(wish.out, rows, tuple(work.notes))


_SCRATCH = ".work"


@dataclass(frozen=True, slots=True)
class _Whole:
    """What whole GGUF files are made of.

    Attributes:
        source: the model's own folder, where nothing has to be merged; None: it is merged.
        dtype: type of the merged weights.
        kept: the merged folder is one that was asked for.
    """

    source: Path | None
    dtype: str
    kept: bool = False


def _whole(plan: Plan, renderer: Renderer) -> _Whole:
    """In fp32, so that every file is rounded once; in half precision where memory has no room for that."""
    if Target.MERGED in plan.wish.to and plan.dtype == "fp32":
        return _Whole(None, "fp32", kept=True)
    source = None if plan.wish.llama_cpp is not None else unmerged(plan.parts, len(renderer.tokenizer))
    return _Whole(source, "fp32" if fits(plan.parameters, "fp32") else "fp16")


class _Work:
    """The files of one export, in the order in which they need each other."""

    def __init__(self, plan: Plan, renderer: Renderer, whole: _Whole, folder: Path, progress: Progress) -> None:
        self._plan, self._whole, self._folder, self._progress = plan, whole, folder, progress
        self._renderer = renderer
        self.notes: list[str] = list(plan.notes)

    def write(self) -> list[Written]:
        """Write them all."""
        plan, folder = self._plan, self._folder
        written: list[Written] = []
        if plan.wish.adapter_only:
            return self._adapter()
        if Target.MERGED in plan.wish.to:
            path = self._merged(folder / "merged", plan.dtype)
            written.append(Written(f"merged {plan.dtype}", plan.dtype, path))
        if plan.makes_gguf:
            written += self._ggufs(self._full())
        if Target.OLLAMA in plan.wish.to:
            self._modelfiles()
        return written

    def _full(self) -> Path:
        """The folder that GGUF files are made of; thrown away afterwards, unless it was asked for."""
        save_tokenizer(self._renderer, self._folder / "tokenizer")
        scratch = self._folder / _SCRATCH / "merged"
        if self._whole.kept:
            return self._folder / "merged"
        if self._whole.source is not None and link(self._whole.source, scratch):
            save_tokenizer(self._renderer, scratch)
            return scratch
        if self._whole.dtype != "fp32":
            self.notes.append("merged weights were rounded to fp16: memory has no room for all of them in fp32")
        return self._merged(scratch, self._whole.dtype)

    def _merged(self, path: Path, dtype: str) -> Path:
        wish = self._plan.wish
        merge(wish.source, path, dtype, adapter=wish.adapter, progress=self._progress)
        save_tokenizer(self._renderer, path)
        return path

    def _ggufs(self, full: Path) -> list[Written]:
        plan = self._plan
        wanted = plan.quants
        needs_f16 = any(kind not in DIRECT for kind in wanted)
        kinds = [*(["f16"] if needs_f16 and "f16" not in wanted else []), *wanted]
        written: list[Written] = []
        for kind in sorted(kinds, key=lambda each: each not in DIRECT):
            scratch = kind not in wanted
            path = (self._folder / _SCRATCH if scratch else self._folder) / plan.file(kind)
            if kind in DIRECT:
                self._direct(full, path, kind)
            else:
                self._quantise(next(each.path for each in written if each.kind == "f16"), path, kind)
            written.append(Written(kind.upper() + (" (not kept)" if scratch else ""), kind, path, scratch))
        return written

    def _direct(self, full: Path, path: Path, kind: str) -> None:
        checkout = self._plan.wish.llama_cpp
        if checkout is not None:
            convert(checkout, full, path, kind)
            return
        report = write_gguf(full, path, kind, progress=self._progress)
        self.notes += [note for note in report.notes if note not in self.notes]
        self._note_fallen(report)

    def _note_fallen(self, report: GgufReport) -> None:
        if report.fallen_back:
            self.notes.append(
                f"{report.path.name}: {len(report.fallen_back)} of {report.tensors} tensors are f16, since 32 does not "
                "divide their rows"
            )

    def _quantise(self, source: Path, path: Path, kind: str) -> None:
        with stage(self._progress, f"quantising to {kind.upper()}"):
            made = quantize(source, path, kind)
        if made.fallbacks:
            types = ", ".join(f"{count} {name}" for name, count in sorted(made.types.items()))
            self.notes.append(
                f"{path.name}: {made.fallbacks} matrices fell back to a type whose blocks fit their rows ({types})"
            )

    def _adapter(self) -> list[Written]:
        plan = self._plan
        base = base_folder(plan.parts)
        assert plan.parts.adapter is not None and base is not None
        written = []
        for kind in plan.quants:
            path = self._folder / f"{plan.name}-adapter-{kind.upper()}.gguf"
            self._note_fallen(write_adapter_gguf(plan.parts.adapter, base, path, kind, progress=self._progress))
            written.append(Written(f"adapter {kind.upper()}", kind, path))
        save_tokenizer(self._renderer, self._folder / "tokenizer")
        self.notes.append("an adapter alone was not tried: no llama.cpp in Python applies one on the way to its logits")
        return written

    def _modelfiles(self) -> None:
        if recognise(self._renderer) is None:
            self.notes.append(
                "Modelfile: the chat template is none of those that Ollama is told by name, and it knows few others: "
                "look at what `ollama show --template` says"
            )
        for number, kind in enumerate(self._plan.quants):
            name = "Modelfile" if number == 0 else f"Modelfile-{kind.upper()}"
            write_text(self._folder / name, modelfile(self._plan.file(kind), self._renderer))


def _kinds_on_disk(plan: Plan, whole: _Whole) -> tuple[str, ...]:
    """Of everything that is on the disk at the same time."""
    merged = (plan.dtype,) if Target.MERGED in plan.wish.to else ()
    if plan.wish.adapter_only or not plan.makes_gguf:
        return merged
    f16 = ("f16",) if any(kind not in DIRECT for kind in plan.quants) and "f16" not in plan.quants else ()
    scratch = () if whole.kept or whole.source is not None else (whole.dtype,)
    return (*merged, *scratch, *f16, *plan.quants)


def _describe(plan: Plan, folder: Path, rows: Sequence[ParityRow], notes: Sequence[str]) -> None:
    """Write parity.md, README.md and export.json."""
    record = _record(plan, folder, rows, notes)
    if rows:
        write_text(folder / "parity.md", f"# Parity of {plan.name}\n\n{parity_table(rows)}\n")
    write_text(folder / "README.md", card(record, rows))
    write_json(folder / EXPORT, record)


def _record(plan: Plan, folder: Path, rows: Sequence[ParityRow], notes: Sequence[str]) -> dict[str, Any]:
    files = [
        {"path": path.relative_to(folder).as_posix(), "bytes": path.stat().st_size, "sha256": sha256_file(path)}
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    ]
    failed = any(not row.passed for row in rows)
    return {
        "kind": "export",
        "status": "failed" if failed else "passed" if rows else "unverified",
        "name": plan.name,
        "source": plan.wish.source,
        "base": plan.parts.base,
        "revision": plan.parts.revision,
        "adapter": None if plan.parts.adapter is None else str(plan.parts.adapter),
        "adapter_only": plan.wish.adapter_only,
        "prompt": plan.prompting.model_dump(mode="json"),
        "sample": dict(plan.sample),
        "quants": list(plan.quants),
        "versions": versions(),
        "notes": list(notes),
        "files": files,
        "parity": to_plain(list(rows)),
    }
