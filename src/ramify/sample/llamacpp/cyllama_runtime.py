"""llama.cpp through cyllama: the lowest level of the package, no generation of its own."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

from ramify.base.errors import ModelError
from ramify.sample.llamacpp.engine import BATCH, Cell, Context, Floats
from ramify.sample.llamacpp.header import Header
from ramify.sample.llamacpp.messages import Messages
from ramify.sample.llamacpp.shell import shell

_CACHE = {"f32": 0, "f16": 1}
_FLASH_OFF, _FLASH_AUTO = 0, -1


class CyllamaEngine:
    """See `Engine`."""

    def __init__(self, model: Any) -> None:
        vocab = model.get_vocab()
        self._model, self._vocab = model, vocab
        self._context: Any = None
        self._batch: Any = None
        self.n_vocab: int = vocab.n_vocab
        self.bos_id, self.eos_id = _known(vocab.token_bos()), _known(vocab.token_eos())
        self.add_bos = bool(vocab.get_add_bos())
        self.shares = not (model.is_recurrent() or model.is_hybrid())

    def tokenize(self, text: str, special: bool) -> list[int]:
        """See `Engine`."""
        return list(self._vocab.tokenize(text, False, special))

    def is_stop(self, token: int) -> bool:
        """See `Engine`."""
        return bool(self._vocab.is_eog(token))

    def open_context(self, context: Context) -> None:
        """See `Engine`."""
        llama = _package()
        self._close_context()
        params = llama.LlamaContextParams()
        params.n_ctx, params.n_seq_max, params.kv_unified = context.cells, context.sequences, True
        params.n_batch = params.n_ubatch = BATCH
        params.n_threads = params.n_threads_batch = context.threads
        params.type_k = params.type_v = _CACHE[context.kv]
        # Fused attention rounds keys and values on its way: off where another engine is compared with.
        params.flash_attn_type = _FLASH_OFF if context.kv == "f32" else _FLASH_AUTO
        self._context = llama.LlamaContext(self._model, params, False)
        self._batch = llama.LlamaBatch(n_tokens=BATCH, embd=0, n_seq_max=1)

    def decode(self, cells: Sequence[Cell]) -> Floats:
        """See `Engine`."""
        batch, context = self._batch, self._context
        batch.clear()
        for cell in cells:
            batch.add(cell.token, cell.position, [cell.sequence], cell.wanted)
        context.decode(batch)
        wanted = [place for place, cell in enumerate(cells) if cell.wanted]
        rows = np.empty((len(wanted), self.n_vocab), dtype=np.float32)
        for row, place in enumerate(wanted):
            rows[row] = np.fromiter(context.get_logits_ith(place), np.float32, self.n_vocab)  # from a list
        return rows

    def copy(self, source: int, target: int, end: int) -> None:
        """See `Engine`."""
        self._context.memory_seq_cp(source, target, 0, end)

    def cut(self, sequence: int, end: int) -> bool:
        """See `Engine`."""
        return bool(self._context.memory_seq_rm(sequence, end, -1))

    def close(self) -> None:
        """See `Engine`."""
        self._close_context()
        self._model.close()

    def _close_context(self) -> None:
        for each in (self._batch, self._context):
            if each is not None:
                each.close()
        self._batch = self._context = None


def load_cyllama(header: Header, vocabulary_only: bool) -> CyllamaEngine:
    """Open the file.

    Raises:
        ModelError: llama.cpp refuses it, with the reason it gives.
    """
    llama = _package()
    # Its own `vocab_only` ends the process: it asks for the heads of a layer that was not read.
    opened = shell(header) if vocabulary_only else nullcontext(header.path)
    with listening(llama) as messages, opened as path:
        try:
            return CyllamaEngine(_model_class(llama)(str(path), llama.LlamaModelParams(), False))
        except (ValueError, RuntimeError, OSError) as error:
            raise ModelError(f"{header.path}: llama.cpp refuses it: {messages.reason or error}") from None


def quantize_cyllama(source: Path, target: Path, kind: int, threads: int) -> None:
    """Write `target` in llama.cpp's file type `kind`.

    Raises:
        ModelError: llama.cpp refuses, with the reason it gives.
    """
    llama = _package()
    params = llama.LlamaModelQuantizeParams()
    params.ftype, params.nthread = kind, threads
    with listening(llama) as messages:
        try:
            llama.model_quantize(str(source), str(target), params)
        except (ValueError, RuntimeError, OSError) as error:
            raise ModelError(f"{source}: llama.cpp cannot quantise it: {messages.reason or error}") from None


@contextmanager
def listening(llama: Any) -> Iterator[Messages]:
    """What llama.cpp says inside the block; before and behind it, it says nothing."""
    messages = Messages()
    llama.set_log_callback(messages.add)
    try:
        yield messages
    finally:
        llama.disable_logging()


def _package() -> Any:
    return import_module("cyllama.llama.llama_cpp")


@cache
def _model_class(llama: Any) -> Any:
    """The package's class of models, with the size that its contexts ask a model for and up to 0.2 do not find."""
    return type("Model", (llama.LlamaModel,), {"n_vocab": property(lambda model: model.get_vocab().n_vocab)})


def _known(token: int) -> int | None:
    return token if token >= 0 else None
