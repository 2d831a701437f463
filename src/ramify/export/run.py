"""An export, from the source to the folder: merge, write, quantise, read back, compare, publish.

    OUT/
      export.json     source, settings, versions, files with size and hash, parity
      README.md       the model card          parity.md   the table
      merged/         a Transformers folder                                       (--to merged)
      tokenizer/      tokenizer and template that the GGUF files were made with   (--to gguf, ollama)
      NAME-Q8_0.gguf …                         Modelfile                          (--to ollama)

Everything is written to `.OUT.new` first and takes OUT's place when it is complete, so OUT is whole or not there.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ramify.base.errors import RunError
from ramify.base.progress import SILENT, Progress
from ramify.base.records import sha256_file, to_plain, write_json, write_text
from ramify.base.runs import versions
from ramify.export.card import card, parity_table
from ramify.export.gguf.adapter import write_adapter_gguf
from ramify.export.gguf.official import convert
from ramify.export.gguf.writer import write_gguf
from ramify.export.merge import merge
from ramify.export.modelfile import modelfile
from ramify.export.parity import ParityRow
from ramify.export.plan import DIRECT, Plan, Target, Wish, check_disk, make_plan
from ramify.export.stages import Written, measure
from ramify.export.tokenizer import renderer_of, save_tokenizer
from ramify.model.load import count_parameters
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
    weights = count_parameters(plan.parts)
    check_disk(wish.out, weights, _kinds_on_disk(plan))
    with _draft(wish.out) as folder:
        work = _Work(plan, folder, progress)
        written = work.write()
        tried = wish.verify and not wish.adapter_only
        rows = tuple(measure(plan, work.renderer, written, folder, progress)) if tried else ()
        shutil.rmtree(folder / _SCRATCH, ignore_errors=True)
        _describe(plan, folder, [each for each in written if not each.scratch], rows, work.notes)
    return Export(wish.out, rows, tuple(work.notes))


_SCRATCH = ".work"


class _Work:
    """The files of one export, in the order in which they need each other."""

    def __init__(self, plan: Plan, folder: Path, progress: Progress) -> None:
        self._plan, self._folder, self._progress = plan, folder, progress
        self.renderer = renderer_of(plan.parts, plan.prompting)
        self.notes: list[str] = []

    def write(self) -> list[Written]:
        """Write them all."""
        plan, folder = self._plan, self._folder
        written: list[Written] = []
        if plan.wish.adapter_only:
            return self._adapter()
        if Target.MERGED in plan.wish.to:
            path = merge(
                plan.wish.source, folder / "merged", plan.wish.dtype, adapter=plan.wish.adapter, progress=self._progress
            )
            save_tokenizer(self.renderer, path)
            written.append(Written("merged " + plan.wish.dtype, plan.wish.dtype, path))
        if plan.makes_gguf:
            written += self._ggufs(self._full())
        if Target.OLLAMA in plan.wish.to:
            self._modelfiles()
        return written

    def _full(self) -> Path:
        """The folder that GGUF files are made of: a merge in fp32, thrown away afterwards."""
        plan = self._plan
        scratch = self._folder / _SCRATCH / "merged"
        path = merge(plan.wish.source, scratch, "fp32", adapter=plan.wish.adapter, progress=self._progress)
        save_tokenizer(self.renderer, path)
        save_tokenizer(self.renderer, self._folder / "tokenizer")
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
        if report.fallen_back:
            self.notes.append(
                f"{path.name}: {len(report.fallen_back)} of {report.tensors} tensors are f16, since 32 does not divide "
                "their rows"
            )

    def _quantise(self, source: Path, path: Path, kind: str) -> None:
        self._progress.start(f"quantising to {kind.upper()}", None)
        made = quantize(source, path, kind)
        self._progress.close()
        if made.fallbacks:
            types = ", ".join(f"{count} {name}" for name, count in sorted(made.types.items()))
            self.notes.append(
                f"{path.name}: {made.fallbacks} matrices fell back to a type whose blocks fit their rows ({types})"
            )

    def _adapter(self) -> list[Written]:
        plan = self._plan
        assert plan.parts.adapter is not None
        base = Path(plan.parts.location)
        written = []
        for kind in plan.quants:
            path = self._folder / f"{plan.name}-adapter-{kind.upper()}.gguf"
            write_adapter_gguf(plan.parts.adapter, base, path, kind, progress=self._progress)
            written.append(Written(f"adapter {kind.upper()}", kind, path))
        save_tokenizer(self.renderer, self._folder / "tokenizer")
        self.notes.append("an adapter alone was not tried: no llama.cpp in Python applies one on the way to its logits")
        return written

    def _modelfiles(self) -> None:
        for number, kind in enumerate(self._plan.quants):
            name = "Modelfile" if number == 0 else f"Modelfile-{kind.upper()}"
            write_text(self._folder / name, modelfile(self._plan.file(kind), self.renderer))


def _kinds_on_disk(plan: Plan) -> tuple[str, ...]:
    """Of everything that is on the disk at the same time."""
    merged = (plan.wish.dtype,) if Target.MERGED in plan.wish.to else ()
    if plan.wish.adapter_only or not plan.makes_gguf:
        return merged
    f16 = ("f16",) if any(kind not in DIRECT for kind in plan.quants) and "f16" not in plan.quants else ()
    return (*merged, "fp32", *f16, *plan.quants)


@contextmanager
def _draft(out: Path) -> Iterator[Path]:
    """A folder beside `out` that takes its place when the block ends well, and is removed when it does not.

    Raises:
        RunError: the folder cannot be made or moved.
    """
    draft = out.with_name(f".{out.name}.new")
    try:
        shutil.rmtree(draft, ignore_errors=True)
        (draft / _SCRATCH).mkdir(parents=True)
        yield draft
        if out.exists():
            shutil.rmtree(out)
        draft.replace(out)
    except OSError as error:
        raise RunError(f"{out}: cannot be written: {error.strerror or error}") from None
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def _describe(
    plan: Plan, folder: Path, written: Sequence[Written], rows: Sequence[ParityRow], notes: Sequence[str]
) -> None:
    """Write parity.md, README.md and export.json."""
    record = _record(plan, folder, rows, notes)
    if rows:
        write_text(folder / "parity.md", f"# Parity of {plan.name}\n\n{parity_table(rows)}\n")
    write_text(folder / "README.md", card(record, rows))
    write_json(folder / "export.json", record)


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
        "prompt": plan.prompting.model_dump(mode="json"),
        "sample": dict(plan.sample),
        "quants": list(plan.quants),
        "versions": versions(),
        "notes": list(notes),
        "files": files,
        "parity": to_plain(list(rows)),
    }
