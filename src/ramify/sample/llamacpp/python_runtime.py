"""llama.cpp through llama-cpp-python: its ctypes layer alone, not its `Llama` class."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

from ramify.base.errors import ModelError
from ramify.sample.llamacpp.engine import BATCH, Cell, Context, Floats
from ramify.sample.llamacpp.header import Header
from ramify.sample.llamacpp.messages import Messages

_CACHE = {"f32": 0, "f16": 1}
_FLASH_OFF, _FLASH_AUTO = 0, -1
_RESULTS = {1: "no room is left in the context", 2: "it was aborted", -1: "the tokens do not follow what came before"}


class LlamaCppEngine:
    """See `Engine`."""

    def __init__(self, model: Any) -> None:
        llama = _package()
        self._llama, self._model = llama, model
        self._context: Any = None
        self._batch: Any = None
        self._vocab = llama.llama_model_get_vocab(model)
        self._memory: Any = None
        self.n_vocab = int(llama.llama_vocab_n_tokens(self._vocab))
        self.bos_id, self.eos_id = (
            _known(llama.llama_vocab_bos(self._vocab)),
            _known(llama.llama_vocab_eos(self._vocab)),
        )
        self.add_bos = bool(llama.llama_vocab_get_add_bos(self._vocab))
        self.shares = not (llama.llama_model_is_recurrent(model) or llama.llama_model_is_hybrid(model))

    def tokenize(self, text: str, special: bool) -> list[int]:
        """See `Engine`."""
        data = text.encode()
        room = len(data) + 16
        while True:
            tokens = (self._llama.llama_token * room)()
            found = self._llama.llama_tokenize(self._vocab, data, len(data), tokens, room, False, special)
            if found >= 0:
                return list(tokens[:found])
            room = -found

    def is_stop(self, token: int) -> bool:
        """See `Engine`."""
        return bool(self._llama.llama_vocab_is_eog(self._vocab, token))

    def open_context(self, context: Context) -> None:
        """See `Engine`."""
        llama = self._llama
        self._close_context()
        params = llama.llama_context_default_params()
        params.n_ctx, params.n_seq_max, params.kv_unified = context.cells, context.sequences, True
        params.n_batch = params.n_ubatch = BATCH
        params.n_threads = params.n_threads_batch = context.threads
        params.type_k = params.type_v = _CACHE[context.kv]
        params.swa_full = True  # a sequence can then go on from any part of another
        params.flash_attn_type = _FLASH_OFF if context.kv == "f32" else _FLASH_AUTO
        with listening(llama) as messages:
            self._context = llama.llama_init_from_model(self._model, params)
        if self._context is None:
            raise RuntimeError(messages.reason or "no memory, as a rule")
        self._memory = llama.llama_get_memory(self._context)
        self._batch = llama.llama_batch_init(BATCH, 0, 1)

    def decode(self, cells: Sequence[Cell]) -> Floats:
        """See `Engine`."""
        batch = self._batch
        batch.n_tokens = len(cells)
        for place, cell in enumerate(cells):
            batch.token[place], batch.pos[place] = cell.token, cell.position
            batch.n_seq_id[place], batch.seq_id[place][0] = 1, cell.sequence
            batch.logits[place] = cell.wanted
        result = self._llama.llama_decode(self._context, batch)
        if result:
            raise RuntimeError(_RESULTS.get(result, f"llama_decode returned {result}"))
        wanted = [place for place, cell in enumerate(cells) if cell.wanted]
        rows = np.empty((len(wanted), self.n_vocab), dtype=np.float32)
        for row, place in enumerate(wanted):
            found = self._llama.llama_get_logits_ith(self._context, place)
            rows[row] = np.ctypeslib.as_array(found, shape=(self.n_vocab,))
        return rows

    def copy(self, source: int, target: int, end: int) -> None:
        """See `Engine`."""
        self._llama.llama_memory_seq_cp(self._memory, source, target, 0, end)

    def cut(self, sequence: int, end: int) -> bool:
        """See `Engine`."""
        return bool(self._llama.llama_memory_seq_rm(self._memory, sequence, end, -1))

    def close(self) -> None:
        """See `Engine`."""
        self._close_context()
        if self._model is not None:
            self._llama.llama_model_free(self._model)
        self._model = None

    def _close_context(self) -> None:
        if self._batch is not None:
            self._llama.llama_batch_free(self._batch)
        if self._context is not None:
            self._llama.llama_free(self._context)
        self._batch = self._context = self._memory = None


def load_llama_cpp(header: Header, vocabulary_only: bool) -> LlamaCppEngine:
    """Open the file.

    Raises:
        ModelError: llama.cpp refuses it, with the reason it gives.
    """
    llama = _package()
    params = llama.llama_model_default_params()
    params.vocab_only = vocabulary_only
    with listening(llama) as messages:
        model = llama.llama_model_load_from_file(str(header.path).encode(), params)
    if model is None:
        raise ModelError(f"{header.path}: llama.cpp refuses it: {messages.reason or 'it gives no reason'}")
    return LlamaCppEngine(model)


def quantize_llama_cpp(source: Path, target: Path, kind: int, threads: int) -> None:
    """Write `target` in llama.cpp's file type `kind`.

    Raises:
        ModelError: llama.cpp refuses, with the reason it gives.
    """
    llama = _package()
    params = llama.llama_model_quantize_default_params()
    params.ftype, params.nthread = kind, threads
    with listening(llama) as messages:
        result = llama.llama_model_quantize(str(source).encode(), str(target).encode(), ctypes.byref(params))
    if result:
        raise ModelError(f"{source}: llama.cpp cannot quantise it: {messages.reason or f'code {result}'}")


@contextmanager
def listening(llama: Any) -> Iterator[Messages]:
    """What llama.cpp says inside the block; before and behind it, it says nothing."""
    messages = Messages()

    def hear(level: int, text: bytes, _: ctypes.c_void_p) -> None:
        messages.add(level, text.decode(errors="replace"))

    called = llama.llama_log_callback(hear)  # has to live as long as it may be called
    llama.llama_log_set(called, ctypes.c_void_p(0))
    try:
        yield messages
    finally:
        llama.llama_log_set(_silence(llama), ctypes.c_void_p(0))


def _package() -> Any:
    llama = import_module("llama_cpp")
    _silence(llama)
    return llama


@cache
def _silence(llama: Any) -> Any:
    """A callback that does nothing; llama.cpp keeps a bare pointer to it, so there is one for all time."""
    silent = llama.llama_log_callback(lambda level, text, data: None)
    llama.llama_log_set(silent, ctypes.c_void_p(0))
    llama.llama_backend_init()
    return silent


def _known(token: int) -> int | None:
    return token if token >= 0 else None
