"""GGUF files written from a Transformers folder, tensor by tensor, in the memory of one block of rows.

The file's header and tables come from the `gguf` package; what stands in them comes from `families`, `metadata` and
`vocabulary`. Sizes are known before a weight is read, so header, tables and weights are written in one go.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ramify.base.progress import SILENT, Progress
from ramify.export.gguf.families import Checked, examine
from ramify.export.gguf.layout import sizes
from ramify.export.gguf.metadata import general_fields, network_fields
from ramify.export.gguf.package import require_gguf
from ramify.export.gguf.rope import rope_factors
from ramify.export.gguf.tensors import Kind, Tensor, fitting, kind_named, planned
from ramify.export.gguf.vocabulary import vocabulary
from ramify.export.whole import require_space, whole_file

if TYPE_CHECKING:
    from gguf import GGUFWriter


@dataclass(frozen=True, slots=True)
class GgufReport:
    """A GGUF file that was written.

    Attributes:
        kind: f32, f16, bf16 or q8_0.
        size: bytes.
        tensors: how many it has.
        fallen_back: matrices that are f16 in a q8_0 file, because 32 does not divide their rows.
        notes: what the user should know.
    """

    path: Path
    kind: str
    size: int
    tensors: int
    fallen_back: tuple[str, ...]
    notes: tuple[str, ...]


def write_gguf(folder: Path, target: Path, kind: str, *, progress: Progress = SILENT) -> GgufReport:
    """Write a Transformers folder (sharded or not) as one GGUF file, whole or not at all.

    Args:
        folder: configuration, weights in safetensors, tokenizer.
        target: the file; an older one is replaced.
        kind: f32, f16, bf16 or q8_0; other kinds are made from such a file by llama.cpp.
        progress: told in bytes.

    Raises:
        ConfigError: the package gguf is not installed, or the kind is none of those.
        ModelError: the model or its tokenizer cannot be written, before a weight is read; or a value does not fit.
        RunError: the disk has no room, or the file cannot be written.
    """
    require_gguf()
    checked = examine(folder)
    tensors = plan(checked, kind_named(kind))
    size = sizes(checked.config)
    words = vocabulary(folder, size.vocabulary, family=checked.family.name)
    parameters = sum(each.numel for _, each in checked.tensors)
    name = target.stem.removesuffix(f"-{kind.upper()}") or target.stem
    fields = general_fields(folder, name, parameters) | network_fields(checked) | dict(words.fields())
    written = write_file(target, checked.family.arch, kind_named(kind), fields, tensors, progress)
    fallen = tuple(each.name for each in tensors if each.kind is Kind.F16 and kind_named(kind) is Kind.Q8_0)
    return GgufReport(target, kind, written, len(tensors), fallen, (*checked.notes, *words.notes))


def plan(checked: Checked, kind: Kind) -> list[Tensor]:
    """The tensors of the file, in order."""
    tensors = [planned(each, source, kind) for each, source in checked.tensors]
    factors = rope_factors(checked.config, sizes(checked.config).head)
    if factors is not None:
        tensors.append(Tensor("rope_freqs.weight", factors, fitting(factors.shape, kind)))
    return tensors


def write_file(
    target: Path, arch: str, kind: Kind, fields: Mapping[str, Any], tensors: Sequence[Tensor], progress: Progress
) -> int:
    """Write header, fields and tensors; the number of bytes.

    Raises:
        RunError: the disk has no room, or the file cannot be written.
        ModelError: a value does not fit, or a source cannot be read.
    """
    from gguf import GGUFWriter

    total = sum(each.nbytes for each in tensors)
    require_space(target, total)
    with whole_file(target) as beside:
        writer = GGUFWriter(beside, arch)
        try:
            _head(writer, kind, fields, tensors)
            progress.start(f"writing {target.name}", total)
            _weights(writer, tensors, progress)
        finally:
            writer.close()
            progress.close()
        size = beside.stat().st_size
    return size


def _head(writer: GGUFWriter, kind: Kind, fields: Mapping[str, Any], tensors: Sequence[Tensor]) -> None:
    """Everything before the weights: fields, then name, shape, type and place of each tensor."""
    import gguf
    import numpy as np

    for key, value in fields.items():
        _add(writer, key, value)
    writer.add_file_type(kind.file_type)
    writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
    for each in tensors:
        ggml = gguf.GGMLQuantizationType[each.kind.name]
        writer.add_tensor_info(each.name, each.shape, np.dtype(np.float32), each.nbytes, raw_dtype=ggml)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()


def _add(writer: GGUFWriter, key: str, value: Any) -> None:
    # bool comes first: it is an int to Python.
    if isinstance(value, bool):
        writer.add_bool(key, value)
    elif isinstance(value, int):
        writer.add_uint32(key, value)
    elif isinstance(value, float):
        writer.add_float32(key, value)
    elif isinstance(value, str):
        writer.add_string(key, value)
    else:
        writer.add_array(key, value)


def _weights(writer: GGUFWriter, tensors: Sequence[Tensor], progress: Progress) -> None:
    """The tensors' bytes, each from an aligned place on, behind an open header."""
    assert writer.fout is not None  # open since the header
    file = writer.fout[0]
    writer.write_padding(file, file.tell())
    done = 0
    for each in tensors:
        for block in each.blocks():
            block.tofile(file)
            done += block.nbytes
            progress.update(done)
        writer.write_padding(file, each.nbytes)
