"""Chat and many completions: the own engine, llama.cpp, and Transformers, side by side.

    python -m benchmarks.chat --out runs/bench/chat.json [--quick] [--rounds N]

Random weights, each side in a fresh process, in turns. Two parts:

**One chat**, the SmolLM2-135M shape: a prompt of 300 tokens, an answer of 64, then a next turn of 30 tokens behind
all of it, and another answer. Shown are the seconds to the first token of both turns, and the tokens a second that
follow. Sides: `ours` (the service behind chat, page and server, bf16 weights), llama.cpp behind the same protocol with
f16, q8_0 and q4_k_m files, and `generate` with a streamer, which computes all of the second prompt again.

**Many completions**, the SmolLM2-360M shape: 64 completions of 64 tokens at temperature 1 behind one prefix of 430
tokens, new tokens a second, the prompt included. Sides: `ours` (`TreeSampler`, bf16 weights), and llama.cpp with an f16
file, 64 parallel sequences in one context that share the prefix's cells, and its own sampler: its lowest level, nothing
of ours in between.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from benchmarks.setting import (
    SHAPES,
    VOCABULARY,
    Report,
    Side,
    Spread,
    alternate,
    emit,
    machine,
    peak_memory,
    product_rates,
    random_model,
    run_side,
    show_table,
)

MODULE = "benchmarks.chat"
PROMPT, ANSWER, NEXT = 300, 64, 30
PREFIX, SEQUENCES, NEW = 430, 64, 64
FIRST_WORD = 1100  # ids below are the embedded model's own, with its special tokens among them
KINDS = ("f16", "q8_0", "q4_k_m")
SEED = 4


@dataclass(frozen=True)
class Work:
    """What one side does.

    Attributes:
        kind: `ours`, `generate`, `llama`, `ours_many`, `llama_many`, `files` or `rates`.
        shape: of the model.
        folder: where the files of that shape are.
        file: kind of GGUF file.
        new: tokens of each answer.
        sequences: completions at once.
        prefix: tokens of their prompt.
    """

    kind: str
    shape: str
    folder: str
    file: str = "f16"
    new: int = ANSWER
    sequences: int = SEQUENCES
    prefix: int = PREFIX


def ids(count: int, seed: int = SEED) -> tuple[int, ...]:
    """Random tokens, none of them special."""
    draws = random.Random(seed)
    return tuple(draws.randrange(FIRST_WORD, VOCABULARY) for _ in range(count))


# --- files ---------------------------------------------------------------------------------------------------------


def files(work: Work) -> dict[str, Any]:
    """The random model as a Transformers folder and as GGUF files."""
    from ramify.export.gguf.writer import write_gguf
    from ramify.sample.llamacpp.quantize import quantize

    folder = Path(work.folder)
    random_model(work.shape, "fp32").save_pretrained(str(folder / "model"))
    write_tokenizer(folder / "model")
    write_gguf(folder / "model", folder / "f16.gguf", "f16")
    for kind in KINDS[1:] if work.file == "all" else ():
        quantize(folder / "f16.gguf", folder / f"{kind}.gguf", kind)
    return {"bytes": {path.stem: path.stat().st_size for path in folder.glob("*.gguf")}}


def write_tokenizer(folder: Path) -> None:
    """The embedded model's, with words up to the size of the vocabulary: every token that is drawn shows."""
    from ramify import nano

    for name in ("tokenizer_config.json", "chat_template.jinja"):
        (folder / name).write_bytes((nano.path() / name).read_bytes())
    parts = json.loads((nano.path() / "tokenizer.json").read_text(encoding="utf-8"))
    words = parts["model"]["vocab"]
    words |= {f"w{number}": number for number in range(len(words), VOCABULARY)}
    (folder / "tokenizer.json").write_text(json.dumps(parts), encoding="utf-8")


# --- one chat ------------------------------------------------------------------------------------------------------


def loaded(work: Work) -> Any:
    """The model for the own engine; nothing stops it."""
    from transformers import AutoTokenizer

    from ramify.model.load import LoadedModel

    network = random_model(work.shape, "bf16").eval()
    tokenizer = AutoTokenizer.from_pretrained(str(Path(work.folder) / "model"))
    return LoadedModel(network, tokenizer, "random", "random", (), network.device, network.dtype)


def ours(work: Work) -> dict[str, Any]:
    """The own engine as a service."""
    from ramify.sample.continuous import ContinuousService

    return chat(work, ContinuousService(loaded(work)))


def llama(work: Work) -> dict[str, Any]:
    """llama.cpp as a service."""
    from ramify.sample.llamacpp.model import open_gguf
    from ramify.sample.llamacpp.service import GgufService

    model = open_gguf(Path(work.folder) / f"{work.file}.gguf")
    return chat(work, GgufService(model))


def chat(work: Work, service: Any) -> dict[str, Any]:
    """Two turns of a chat, behind a short one that warms up."""
    answered(service, ids(8, 1), 4)
    first = answered(service, ids(PROMPT), work.new)
    behind = (*ids(PROMPT), *first["tokens"], *ids(NEXT, 9))
    second = answered(service, behind, work.new)
    service.close()
    return figures(work, first, second)


def answered(service: Any, prompt: tuple[int, ...], new: int) -> dict[str, Any]:
    """When the first piece came, when the last, and the tokens."""
    from ramify.base.config import Sampling
    from ramify.sample.service import Request

    began, times, tokens = time.perf_counter(), [], []
    for piece in service.submit(Request(prompt, Sampling(max_new_tokens=new))):
        times.append(time.perf_counter() - began)
        tokens += [token.id for token in piece.tokens]
    return {"first": times[0], "last": times[-1], "tokens": tokens}


def generate(work: Work) -> dict[str, Any]:
    """`transformers.generate` with a streamer, bf16 or fp32, whichever multiplies faster here."""
    import torch

    from ramify.model.rates import fastest_dtype

    network = random_model(work.shape, "bf16").eval().to(fastest_dtype(torch.device("cpu")))
    network.generation_config.eos_token_id, network.generation_config.pad_token_id = None, 0

    def turn(prompt: tuple[int, ...], new: int) -> dict[str, Any]:
        clock = Clock()
        network.generate(torch.tensor([prompt]), do_sample=False, max_new_tokens=new, streamer=clock)
        return {"first": clock.times[0], "last": clock.times[-1], "tokens": clock.tokens}

    turn(ids(8, 1), 4)
    first = turn(ids(PROMPT), work.new)
    second = turn((*ids(PROMPT), *first["tokens"], *ids(NEXT, 9)), work.new)
    return figures(work, first, second)


class Clock:
    """A streamer that notes when tokens come."""

    def __init__(self) -> None:
        self.times: list[float] = []
        self.tokens: list[int] = []
        self._began = time.perf_counter()
        self._prompt = True

    def put(self, value: Any) -> None:
        """Tokens; those of the prompt come first."""
        if not self._prompt:
            self.times.append(time.perf_counter() - self._began)
            self.tokens += value.flatten().tolist()
        self._prompt = False

    def end(self) -> None:
        """Nothing to do."""


def figures(work: Work, first: dict[str, Any], second: dict[str, Any]) -> dict[str, Any]:
    """What a side of the chat reports."""
    rates = [(len(turn["tokens"]) - 1) / (turn["last"] - turn["first"]) for turn in (first, second)]
    return {
        "work": asdict(work),
        "first_token": first["first"],
        "next_turn": second["first"],
        "tokens_per_second": sum(rates) / 2,
        "memory": peak_memory(),
    }


# --- many completions ----------------------------------------------------------------------------------------------


def ours_many(work: Work) -> dict[str, Any]:
    """The shared-prefix engine."""
    from ramify.base.config import Sampling
    from ramify.sample.engine import TreeSampler
    from ramify.sample.sampler import PromptTokens

    sampler = TreeSampler(loaded(work))
    prompt = PromptTokens("prompt", ids(work.prefix))
    settings = Sampling(n=work.sequences, temperature=1.0, max_new_tokens=work.new)
    sampler.sample([prompt], Sampling(max_new_tokens=2), seed=SEED)
    began = time.perf_counter()
    [samples] = sampler.sample([prompt], settings, seed=SEED)
    seconds = time.perf_counter() - began
    assert all(len(sample.token_ids) == work.new for sample in samples)
    return many(work, seconds)


def llama_many(work: Work) -> dict[str, Any]:
    """llama.cpp at its lowest level, with its own sampler."""
    import torch
    from cyllama.llama import llama_cpp as cpp

    cpp.disable_logging()
    model = cpp.LlamaModel(str(Path(work.folder) / f"{work.file}.gguf"), cpp.LlamaModelParams(), False)
    params = cpp.LlamaContextParams()
    params.n_ctx = -(-(work.prefix + work.sequences * (work.new + 1)) // 256) * 256
    params.n_seq_max, params.kv_unified = work.sequences, True
    params.n_batch = params.n_ubatch = 512
    params.n_threads = params.n_threads_batch = torch.get_num_threads()
    context = cpp.LlamaContext(model, params, False)
    batch = cpp.LlamaBatch(n_tokens=512, embd=0, n_seq_max=1)
    samplers = [sampler_at(cpp, seed) for seed in range(work.sequences)]
    decode(context, batch, [(1, 0, 0)])
    context.memory_seq_rm(0, 0, -1)
    began = time.perf_counter()
    drawn = forked(work, context, batch, samplers)
    for step in range(1, work.new):
        decode(context, batch, [(token, work.prefix + step - 1, place) for place, token in enumerate(drawn)])
        drawn = [sampler.sample(context, place) for place, sampler in enumerate(samplers)]
    return many(work, time.perf_counter() - began)


def sampler_at(cpp: Any, seed: int) -> Any:
    """Temperature 1, nothing cut."""
    chain = cpp.LlamaSampler(cpp.LlamaSamplerChainParams())
    chain.add_dist(seed)
    return chain


def forked(work: Work, context: Any, batch: Any, samplers: list[Any]) -> list[int]:
    """The prefix once, its cells shared by all sequences, and the first token of each."""
    prompt = list(enumerate(ids(work.prefix)))
    for start in range(0, work.prefix, 512):
        decode(context, batch, [(token, place, 0) for place, token in prompt[start : start + 512]])
    for place in range(1, work.sequences):
        context.memory_seq_cp(0, place, 0, work.prefix)
    last = len(prompt) - (len(prompt) - 1) // 512 * 512 - 1
    return [sampler.sample(context, last) for sampler in samplers]


def decode(context: Any, batch: Any, cells: list[tuple[int, int, int]]) -> None:
    """Compute tokens: (token, position, sequence); logits of a prompt's last one alone, of steps all."""
    batch.clear()
    prompt = len({sequence for _, _, sequence in cells}) == 1
    for place, (token, position, sequence) in enumerate(cells):
        batch.add(token, position, [sequence], not prompt or place == len(cells) - 1)
    context.decode(batch)


def many(work: Work, seconds: float) -> dict[str, Any]:
    """What a side of many completions reports."""
    rate = work.sequences * work.new / seconds
    return {"work": asdict(work), "tokens_per_second": rate, "seconds": seconds, "memory": peak_memory()}


# --- the comparison ------------------------------------------------------------------------------------------------

SIDES: dict[str, Callable[[Work], dict[str, Any]]] = {
    each.__name__: each for each in (files, ours, llama, generate, ours_many, llama_many)
}


def compare_chat(base: Work, rounds: int, report: Report) -> None:
    """One chat on all sides."""
    works = {"ours": replace(base, kind="ours")}
    works |= {f"llama.cpp {kind}": replace(base, kind="llama", file=kind) for kind in KINDS}
    works["generate"] = replace(base, kind="generate")
    results = alternate(MODULE, [Side(name, asdict(each)) for name, each in works.items()], rounds)
    rows = []
    for name, runs in results.items():
        shown = {
            figure: Spread.of([each[figure] for each in runs])
            for figure in ("first_token", "next_turn", "tokens_per_second")
        }
        target = report.ours if name == "ours" else report.peers.setdefault(name, {})
        target["chat"] = {figure: asdict(spread) for figure, spread in shown.items()}
        memory = max(each["memory"] for each in runs) / 2**20
        first, following, speed = shown.values()
        rows.append((name, f"{first.median:.2f}", f"{following.median:.2f}", speed, f"{memory:,.0f}"))
        if name != "ours":
            own = report.ours["chat"]
            report.ratio[f"chat_speed_{name}"] = own["tokens_per_second"]["median"] / speed.median
            report.ratio[f"chat_next_turn_{name}"] = following.median / own["next_turn"]["median"]
    columns = ("side", "first token, s", "next turn, s", "tokens/s", "peak MiB")
    show_table(f"one chat, {base.shape} shape: prompt {PROMPT}, answers {base.new}, next turn {NEXT}", columns, rows)


def compare_many(base: Work, rounds: int, report: Report) -> None:
    """Many completions on both sides."""
    works = {"ours": replace(base, kind="ours_many"), "llama.cpp f16": replace(base, kind="llama_many")}
    results = alternate(MODULE, [Side(name, asdict(each)) for name, each in works.items()], rounds)
    speed = {name: Spread.of([each["tokens_per_second"] for each in runs]) for name, runs in results.items()}
    report.ours["many"] = asdict(speed["ours"])
    report.peers.setdefault("llama.cpp f16", {})["many"] = asdict(speed["llama.cpp f16"])
    report.ratio["many"] = speed["ours"].median / speed["llama.cpp f16"].median
    rows = [
        (name, spread, f"{speed['ours'].median / spread.median:.2f}", f"{results[name][0]['memory'] / 2**20:,.0f}")
        for name, spread in speed.items()
    ]
    title = f"{base.sequences} completions of {base.new} tokens behind one prefix of {base.prefix}, {base.shape} shape"
    show_table(title, ("side", "new tokens/s", "ours over it", "peak MiB"), rows)


def main() -> None:
    """Compare, print the tables, write the report."""
    about = (__doc__ or "").splitlines()
    parser = argparse.ArgumentParser(description=about[0], epilog=about[2])
    parser.add_argument("--out", type=Path, help="JSON file for the report")
    parser.add_argument("--rounds", type=int, default=3, help="fresh processes of each side (medians are reported)")
    parser.add_argument("--quick", action="store_true", help="one round")
    parser.add_argument("--shapes", nargs=2, choices=tuple(SHAPES), default=("135M", "360M"), help="of both parts")
    parser.add_argument("--new", type=int, default=ANSWER, help="tokens of each answer and completion")
    parser.add_argument("--side", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.side:
        work = Work(**json.loads(asked.side))
        emit({"rates": product_rates(work.shape)} if work.kind == "rates" else SIDES[work.kind](work))
        return
    if asked.rounds < 1 or asked.new < 2:
        parser.error(f"--rounds {asked.rounds} --new {asked.new}: at least 1 round and 2 tokens are needed")
    rounds = 1 if asked.quick else asked.rounds
    report = Report(machine=machine(), settings={"rounds": rounds, "shapes": asked.shapes, "new": asked.new})
    with tempfile.TemporaryDirectory() as folder:
        for part, shape in zip((compare_chat, compare_many), asked.shapes, strict=True):
            base = Work("files", shape, str(Path(folder) / part.__name__), "all", new=asked.new)
            print(f"  writing the files of the {shape} shape …", file=sys.stderr, flush=True)
            base = replace(base, file="all" if part is compare_chat else "f16")
            made = run_side(MODULE, Side("files", asdict(base)))
            report.settings[f"bytes_{shape}"] = made["bytes"]
            part(replace(base, file="f16"), rounds, report)
    report.machine["gflops"] = run_side(MODULE, Side("rates", asdict(Work("rates", asked.shapes[1], ""))))["rates"]
    if asked.out:
        report.write(asked.out)
        print(f"\nwritten to {asked.out}")


if __name__ == "__main__":
    main()
