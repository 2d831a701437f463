"""llama.cpp in this process: one opened GGUF file, whichever package brings llama.cpp.

    runtime = open_runtime(Path("model-Q8_0.gguf"))
    runtime.logits(runtime.tokenize("Once upon a time"))

Two packages will do: cyllama (a wheel, no compiler needed), and llama-cpp-python where it is installed. Both are used
through `Engine`, their lowest level; everything above it is the same for both. llama.cpp ends the process when two
threads use one context at once, so every call of a `Runtime` takes its lock.

A context has cells for tokens, shared by its sequences: a sequence copied from another takes no cells of its own
until it grows.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from threading import Lock, RLock
from typing import Literal

import numpy as np
import torch

from ramify.base.errors import ConfigError, DataError, LengthError, ModelError
from ramify.sample.llamacpp.engine import BATCH, CacheType, Cell, Context, Engine, Floats
from ramify.sample.llamacpp.header import Header, read_header
from ramify.sample.llamacpp.vocabulary import TokenTable

Package = Literal["cyllama", "llama_cpp"]

PACKAGES: tuple[Package, ...] = ("cyllama", "llama_cpp")
"""Import names, in the order they are tried."""
_F32 = 0
_NUMBERS = range(24, 29)  # whole numbers and fp64
_LOADING = Lock()  # its log is one for the process: a load reads the lines of its own


class Runtime:
    """One opened GGUF file; safe to use from any thread.

    Attributes:
        path: of the file.
        header: what the file says about itself.
        table: its tokens as bytes.
        n_vocab: tokens in the vocabulary.
        n_ctx: longest sequence in tokens.
        asked: what was asked for as `n_ctx`, or None.
        kv: type of keys and values.
        metadata: the header's single values as text; `header.metadata` has all of them as they are.
        bos_id, eos_id: None where the file names none.
        add_bos: whether a text begins with BOS; `tokenize` never adds it.
        stop_ids: all tokens that end a generation, sorted.
        shares: whether a sequence can go on from a part of another (not in recurrent models).
        lease: grows with every `reserve`: who finds another number than before has lost the context to someone else.
    """

    def __init__(self, header: Header, engine: Engine, n_ctx: int | None, kv: CacheType, threads: int) -> None:
        self.path, self.header, self.table = header.path, header, TokenTable(header.metadata)
        self.n_vocab, self.asked = engine.n_vocab, n_ctx
        trained = int(header.own("context_length", 0))
        self.n_ctx = min(trained, n_ctx or trained)
        self.bos_id, self.eos_id, self.add_bos = engine.bos_id, engine.eos_id, engine.add_bos
        self.stop_ids = tuple(token for token in range(engine.n_vocab) if engine.is_stop(token))
        self.metadata: Mapping[str, str] = {
            name: str(value) for name, value in header.metadata.items() if not isinstance(value, list)
        }
        self._engine, self.kv, self._threads = engine, kv, threads
        self._context: Context | None = None
        self._lock = RLock()
        self._closed = False
        self.shares, self.lease = engine.shares, 0

    def tokenize(self, text: str, *, special: bool = True) -> list[int]:
        """Token ids of a text, without BOS; with `special`, special tokens named in it become those tokens.

        Raises:
            DataError: the text holds a lone surrogate, which no tokenizer knows.
        """
        try:
            text.encode()
        except UnicodeEncodeError as error:
            raise DataError(f"the text is not Unicode: {error}") from None
        if not text:
            return []
        with self._open():
            return self._engine.tokenize(text, special)

    def piece(self, token: int) -> bytes:
        """The bytes of a token; special tokens are spelled out."""
        return self.table.piece(token)

    def logits(self, ids: Sequence[int], last: int | None = None) -> Floats:
        """Logits behind each token, computed in an empty context; what it held before is forgotten.

        Args:
            last: of so many last tokens alone; None: of all.

        Returns:
            [tokens, vocabulary] fp32.

        Raises:
            LengthError: more tokens than `n_ctx`.
            DataError: none, or ids that are not in the vocabulary.
        """
        with self._open():
            if not ids:
                raise DataError("there are no tokens to compute logits of")
            self.reserve(len(ids), 1)
            first = 0 if last is None else len(ids) - last
            cells = [Cell(token, place, 0, place >= first) for place, token in enumerate(ids)]
            found = [self.decode(cells[begin : begin + BATCH]) for begin in range(0, len(ids), BATCH)]
            self.cut(0, 0)
            return np.concatenate(found)

    def reserve(self, cells: int, sequences: int) -> None:
        """Have an empty context of at least this size.

        Raises:
            LengthError: the model was not built for so many tokens in one sequence.
            ModelError: llama.cpp cannot open it, for want of memory as a rule.
        """
        if sequences == 1 and cells > self.n_ctx:
            raise LengthError(f"{self.path.name}: {cells} tokens exceed the model's {self.n_ctx}")
        with self._open():
            self.lease += 1
            now = self._context
            if now is not None and now.cells >= cells and now.sequences >= sequences:
                for sequence in range(now.sequences):
                    self._engine.cut(sequence, 0)
                return
            wanted = Context(_rounded(cells), sequences, self.kv, self._threads)
            try:
                self._engine.open_context(wanted)
            except (RuntimeError, ValueError, MemoryError) as error:
                self._context = None
                raise ModelError(
                    f"{self.path}: llama.cpp cannot hold {wanted.cells} tokens in {sequences} sequences: {error}",
                    hint="a smaller context or fewer sequences take less memory",
                ) from None
            self._context = wanted

    def decode(self, cells: Sequence[Cell]) -> Floats:
        """Compute at most `BATCH` tokens: the logits of those that want them.

        Returns:
            [wanted, vocabulary] fp32, in the order of `cells`.

        Raises:
            DataError: an id is not in the vocabulary.
            ModelError: llama.cpp failed.
        """
        strange = [cell.token for cell in cells if not 0 <= cell.token < self.n_vocab]
        if strange:
            raise DataError(
                f"token {strange[0]} is not in the vocabulary of {self.path.name} ({self.n_vocab} tokens)",
                hint="were the ids made by another tokenizer?",
            )
        with self._open():
            try:
                return self._engine.decode(cells)
            except (RuntimeError, ValueError) as error:
                raise ModelError(f"{self.path}: llama.cpp failed: {error}") from None

    def copy(self, source: int, target: int, end: int) -> None:
        """Let sequence `target` share the first `end` tokens of `source`."""
        with self._open():
            self._engine.copy(source, target, end)

    def cut(self, sequence: int, end: int) -> bool:
        """Forget a sequence from token `end` on; False: this model can only forget all of it (`end` 0)."""
        with self._open():
            return self._engine.cut(sequence, end)

    def close(self) -> None:
        """Let the memory go; harmless when it is gone. Every other call is refused from now on."""
        with self._lock:
            if not self._closed:
                self._closed = True
                self._engine.close()

    def _open(self) -> RLock:
        """The lock of a runtime that is not closed."""
        if self._closed:
            raise ModelError(f"{self.path}: the model was closed")
        return self._lock


def open_runtime(
    path: Path,
    *,
    n_ctx: int | None = None,
    kv: CacheType = "f16",
    threads: int | None = None,
    vocabulary_only: bool = False,
    package: Package | None = None,
) -> Runtime:
    """Open a GGUF file.

    Args:
        n_ctx: longest sequence in tokens; None: what the model was built for.
        kv: type of keys and values: f32 to compare with another engine, f16 otherwise.
        threads: that compute; None: as many as torch uses.
        vocabulary_only: read the tokenizer alone; nothing can be computed. Files without weights open only so.
        package: which one brings llama.cpp; None: the first of `PACKAGES` that is installed.

    Raises:
        ModelError: the file is no GGUF, is cut off, or llama.cpp refuses it.
        ConfigError: neither package is installed.
    """
    header = read_header(path)
    chosen = installed() if package is None else package
    if not vocabulary_only:
        _check_weights(header)
    with _LOADING:
        engine = _load(chosen, header, vocabulary_only)
    try:
        return Runtime(header, engine, n_ctx, kv, threads or torch.get_num_threads())
    except ModelError:
        engine.close()
        raise


def installed() -> Package:
    """The package that brings llama.cpp here.

    Raises:
        ConfigError: none does; with the line that installs one.
    """
    found = next((package for package in PACKAGES if find_spec(package) is not None), None)
    if found is None:
        raise ConfigError("GGUF files need llama.cpp, which is not installed", hint="pip install 'ramify[chat]'")
    return found


def _load(package: Package, header: Header, vocabulary_only: bool) -> Engine:
    os.environ.setdefault("GGML_NO_BACKTRACE", "1")  # its own report of a crash starts a debugger
    if package == "cyllama":
        from ramify.sample.llamacpp.cyllama_runtime import load_cyllama

        return load_cyllama(header, vocabulary_only)
    from ramify.sample.llamacpp.python_runtime import load_llama_cpp

    return load_llama_cpp(header, vocabulary_only)


def _check_weights(header: Header) -> None:
    """Refuse what llama.cpp divides by, or asserts on, before it does.

    Raises:
        ModelError: no weights, no architecture, a size that is not positive, a type that cannot be computed with.
    """
    if not header.tensors:
        raise ModelError(f"{header.path}: the file has a vocabulary but no weights")
    if header.metadata.get("general.type", "model") != "model":
        kind = header.metadata["general.type"]
        raise ModelError(f"{header.path}: holds no model but something of type {kind!r}")
    if not header.family:
        raise ModelError(f"{header.path}: general.architecture is missing")
    for name in ("context_length", "embedding_length", "block_count", "attention.head_count"):
        value = header.own(name, 1)
        sizes = value if isinstance(value, list) else [value]
        if not all(isinstance(size, int) and size >= 0 for size in sizes) or not any(sizes):
            raise ModelError(f"{header.path}: {header.family}.{name} = {value!r} cannot be")
    for tensor in header.tensors:
        vector = tensor.name.endswith(("norm.weight", ".bias"))
        if (vector and tensor.kind != _F32) or tensor.kind in _NUMBERS:
            raise ModelError(
                f"{header.path}: tensor {tensor.name} has the type {tensor.kind}, which is not computed with"
            )
    for name in ("attention.layer_norm_rms_epsilon", "attention.layer_norm_epsilon"):
        value = header.own(name, 0.0)
        if not 0 <= value < 1:
            raise ModelError(f"{header.path}: {header.family}.{name} = {value!r} cannot be")


def _rounded(cells: int) -> int:
    """llama.cpp rounds up to 256 itself; said here so that a context of nearly the same size is used again."""
    return max(256, -(-cells // 256) * 256)
