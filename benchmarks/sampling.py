"""Sampling against Transformers: 16 questions, 8 samples each, behind one few-shot prefix.

    python -m benchmarks.sampling --out runs/bench/sampling.json [--quick] [--dtype bf16|fp32|best] [--rounds N]

On two cores without bf16 products one round takes ten minutes, each further one five.

The model is the SmolLM2-135M shape with random weights, the prompts random ids: a prefix of 400 tokens, questions of
20, exactly 40 and exactly 150 new tokens at temperature 1. Speed is new tokens a second, prompts included.

    ours                    `TreeSampler`, all 128 sequences
    generate                `transformers.generate` on expanded prompts, at the batch size that is fastest for it
    generate_prefix_cache   the same, handed the keys and values of the common prefix, computed once
    continuous_batching     `generate_batch` of Transformers

`generate` does batch after batch of the same work, so one batch is timed. Its batch size is found in two steps: a
prompt and a step are timed at each size, which gives the speed at any length; then the best size is measured in full,
and the second where it came close. The faster one counts, for `generate` and for `generate_prefix_cache` each.
Continuous batching is given all requests at once on a GPU. On a CPU it is given as many as the best batch: there more
make it slower, and all 128 would take hours in bf16.

With `--dtype bf16` the weights are bf16 on all sides; where bf16 products are slow, ours computes in fp32 on its own
account, and the table says so. `best` gives every side the type whose products are fastest here.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

from benchmarks.batches import PROBE_TOKENS, Timings, best_batches, pays, repeated, timed
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

MODULE = "benchmarks.sampling"
PREFIX, QUESTION = 400, 20
BATCHES = (8, 16, 32, 64, 128)
SEED = 1


@dataclass(frozen=True)
class Work:
    """What one side does.

    Attributes:
        kind: `ours`, `generate`, `generate_prefix_cache`, `continuous_batching`, `search` or `rates`.
        dtype: of the weights: `fp32` or `bf16`.
        new: tokens of each completion.
        batch: sequences that the other sides do at once.
        questions, samples: how many, and how many samples of each.
        shape: of the model.
        lengths: all that will be asked for, for the search.
    """

    kind: str
    dtype: str = "bf16"
    new: int = 40
    batch: int = 32
    questions: int = 16
    samples: int = 8
    shape: str = "135M"
    lengths: tuple[int, ...] = (40, 150)

    @property
    def sequences(self) -> int:
        """All samples of all questions."""
        return self.questions * self.samples


def make_prompts(work: Work) -> tuple[list[int], list[list[int]]]:
    """The common prefix, and the questions behind it."""
    draws = random.Random(SEED)
    ids = [draws.randrange(2, VOCABULARY) for _ in range(PREFIX + work.questions * QUESTION)]
    questions = [ids[start : start + QUESTION] for start in range(PREFIX, len(ids), QUESTION)]
    return ids[:PREFIX], questions


def expanded(work: Work) -> list[list[int]]:
    """Every sample's prompt, as a list a side without sharing needs it."""
    prefix, questions = make_prompts(work)
    return [prefix + question for question in questions for _ in range(work.samples)]


# --- the sides, each in a process of its own ---------------------------------------------------------------------


def model(work: Work) -> Any:
    """The random model, on the device, never ending by itself."""
    import torch

    network = random_model(work.shape, work.dtype).eval()
    network.generation_config.eos_token_id = None
    network.generation_config.pad_token_id = 0
    return network.to("cuda") if torch.cuda.is_available() else network


def ours(work: Work) -> dict[str, Any]:
    """The shared-prefix engine."""
    from ramify.base.config import Sampling
    from ramify.model.load import LoadedModel
    from ramify.model.rates import product_dtype
    from ramify.sample.engine import TreeSampler
    from ramify.sample.sampler import PromptTokens

    network = model(work)
    loaded = LoadedModel(network, NoTokenizer(), "random", "random", (), network.device, network.dtype)
    prefix, questions = make_prompts(work)
    prompts = [PromptTokens(str(number), tuple(prefix + each)) for number, each in enumerate(questions)]
    settings = Sampling(n=work.samples, temperature=1.0, max_new_tokens=work.new, live=128)
    sampler = TreeSampler(loaded)
    sampler.sample(prompts[:1], Sampling(max_new_tokens=2), seed=SEED)
    seconds, samples = timed(lambda: sampler.sample(prompts, settings, seed=SEED))
    assert all(len(sample.token_ids) == work.new for group in samples for sample in group)
    products = {"float32": "fp32", "bfloat16": "bf16"}.get(str(product_dtype(next(network.parameters())))[6:], "other")
    return measured(work, seconds, work.sequences, products)


class NoTokenizer:
    """Random ids have no text, and none of them is special."""

    added_tokens_decoder: ClassVar[dict[int, Any]] = {}

    def decode(self, *_: Any, **__: Any) -> str:
        """Nothing."""
        return ""


def generate(work: Work) -> dict[str, Any]:
    """One batch of `transformers.generate`."""
    import torch

    network = model(work)
    ids = torch.tensor(expanded(work)[: work.batch], device=network.device)
    run_generate(network, ids[:1, :8], 2)
    seconds, out = timed(lambda: run_generate(network, ids, work.new))
    assert out.shape[1] == ids.shape[1] + work.new
    return measured(work, seconds, work.batch, work.dtype)


def run_generate(network: Any, ids: Any, new: int, **keywords: Any) -> Any:
    """Temperature 1, nothing cut, exactly `new` tokens."""
    import torch

    return network.generate(
        ids, attention_mask=torch.ones_like(ids), do_sample=True, top_k=0, max_new_tokens=new, **keywords
    )


def generate_prefix_cache(work: Work) -> dict[str, Any]:
    """One batch of `generate` that is handed the cache of the prefix; the prefix counts once for all batches."""
    import torch
    from transformers import DynamicCache

    network = model(work)
    ids = torch.tensor(expanded(work)[: work.batch], device=network.device)
    run_generate(network, ids[:1, :8], 2)

    def of_prefix() -> Any:
        with torch.no_grad():
            return network(ids[:1, :PREFIX], past_key_values=DynamicCache(), use_cache=True).past_key_values

    def batch() -> Any:
        cache.batch_repeat_interleave(work.batch)
        return run_generate(network, ids, work.new, past_key_values=cache)

    prefix_seconds, cache = timed(of_prefix)
    seconds, out = timed(batch)
    assert out.shape[1] == ids.shape[1] + work.new
    return measured(work, seconds + prefix_seconds * work.batch / work.sequences, work.batch, work.dtype)


def continuous_batching(work: Work) -> dict[str, Any]:
    """Requests through Transformers' continuous batching (which shares whole blocks of equal prompts itself)."""
    import torch
    from transformers import ContinuousBatchingConfig, GenerationConfig

    network = model(work)
    prompts = expanded(work)
    if not torch.cuda.is_available():
        prompts = prompts[: work.batch]
    settings = GenerationConfig(do_sample=True, top_k=0, max_new_tokens=work.new, eos_token_id=-1, pad_token_id=0)
    blocks = {} if torch.cuda.is_available() else {"num_blocks": 512, "max_batch_tokens": 1024}
    batching = ContinuousBatchingConfig(**blocks)

    def task() -> Any:
        return network.generate_batch(prompts, settings, batching, progress_bar=False)

    seconds, out = timed(task)
    lengths = {len(each.generated_tokens) for each in out.values()}
    assert len(out) == len(prompts) and lengths == {work.new}, (len(out), lengths)
    return measured(work, seconds, len(prompts), work.dtype)


def search(work: Work) -> dict[str, Any]:
    """Time a prompt and a step of `generate` at growing batch sizes, while that pays at any of the lengths."""
    import torch

    network = model(work)
    ids = torch.tensor(expanded(work), device=network.device)
    timings: Timings = {}
    for size in (size for size in BATCHES if size <= work.sequences):
        timings[size] = {
            "first": repeated(lambda size=size: run_generate(network, ids[:size], 1)),
            "more": repeated(lambda size=size: run_generate(network, ids[:size], 1 + PROBE_TOKENS)),
        }
        if not any(pays(timings, new) for new in work.lengths):
            break
    return {"timings": timings}


def measured(work: Work, seconds: float, sequences: int, products: str) -> dict[str, Any]:
    """What a side reports."""
    return {
        "work": asdict(work),
        "tokens_per_second": sequences * work.new / seconds,
        "seconds": seconds,
        "sequences": sequences,
        "memory": peak_memory(),
        "products": products,
    }


# --- the comparison ----------------------------------------------------------------------------------------------

SIZED = ("generate", "generate_prefix_cache")
PEERS = (*SIZED, "continuous_batching")
SIDES = {each.__name__: each for each in (ours, generate, generate_prefix_cache, continuous_batching, search)}
Results = dict[str, list[dict[str, Any]]]


def compare(base: Work, rounds: int) -> Report:
    """All sides at each length, and the lower ratio of the lengths for each peer."""
    report = Report(machine=machine(), settings={**asdict(base), "rounds": rounds})
    report.machine["gflops"] = run_side(MODULE, Side("rates", asdict(replace(base, kind="rates"))))["rates"]
    print("searching for the best batch sizes of generate …", file=sys.stderr, flush=True)
    found = run_side(MODULE, Side("search", asdict(replace(base, kind="search"))))["timings"]
    timings: Timings = {int(size): seconds for size, seconds in found.items()}  # JSON has text for names
    report.peers["search"] = found
    others = ["ours", *(["continuous_batching"] if continuous_batching_runs(base, report) else [])]
    for new in base.lengths:
        sizes = best_batches(timings, new)
        results = take_turns(replace(base, new=new, batch=sizes[0]), others, sizes, rounds, report)
        add(report, new, results)
        show(new, base, results)
    add_lowest(report, base.lengths)
    return report


def continuous_batching_runs(work: Work, report: Report) -> bool:
    """Whether it runs here, tried on a little work; says so where it does not."""
    little = replace(work, kind="continuous_batching", questions=2, samples=1, new=3)
    try:
        run_side(MODULE, Side("continuous_batching", asdict(little)))
    except SystemExit as error:
        report.peers["failed"] = {"continuous_batching": str(error)[-600:]}
        print(f"continuous batching does not run here: {str(error).splitlines()[-1]}", file=sys.stderr)
        return False
    return True


def take_turns(work: Work, others: list[str], sizes: list[int], rounds: int, report: Report) -> Results:
    """All sides in turns. The first round tries `generate` at each size; the faster one stays, for each way."""
    sized = {f"{kind} at {size}": replace(work, kind=kind, batch=size) for kind in SIZED for size in sizes}
    works = {**{kind: replace(work, kind=kind) for kind in others}, **sized}
    tried = alternate(MODULE, [Side(name, asdict(each)) for name, each in works.items()], 1)
    report.peers["tried"] = report.peers.get("tried", {}) | {str(work.new): {name: rate(tried[name]) for name in sized}}
    chosen = {
        kind: fastest_of({name: tried[name] for name in sized if name.startswith(f"{kind} at")}) for kind in SIZED
    }
    names = {**{kind: kind for kind in others}, **chosen}
    more = alternate(MODULE, [Side(kind, asdict(works[name])) for kind, name in names.items()], rounds - 1)
    return {kind: tried[name] + more[kind] for kind, name in names.items()}


def rate(runs: list[dict[str, Any]]) -> float:
    """Median of new tokens a second."""
    return Spread.of([each["tokens_per_second"] for each in runs]).median


def fastest_of(results: Results) -> str:
    """The name whose runs are fastest."""
    return max(results, key=lambda name: rate(results[name]))


def add_lowest(report: Report, lengths: Sequence[int]) -> None:
    """For each peer the lower ratio of the lengths: what may be claimed for both."""
    for peer in PEERS:
        ratios = [report.ratio[f"{peer}_{new}"] for new in lengths if f"{peer}_{new}" in report.ratio]
        if ratios:
            report.ratio[peer] = min(ratios)


def add(report: Report, new: int, results: Results) -> None:
    """Medians, and our median over each peer's."""
    speed = {name: Spread.of([each["tokens_per_second"] for each in runs]) for name, runs in results.items()}
    for name, runs in results.items():
        target = report.ours if name == "ours" else report.peers.setdefault(name, {})
        target[f"tokens_per_second_{new}"] = asdict(speed[name])
        target[f"memory_{new}"] = max(each["memory"] for each in runs)
        target["products"] = runs[0]["products"]
        target[f"batch_{new}"] = runs[0]["sequences"]
        if name != "ours":
            report.ratio[f"{name}_{new}"] = speed["ours"].median / speed[name].median


def show(new: int, work: Work, results: Results) -> None:
    """One table."""
    best = Spread.of([each["tokens_per_second"] for each in results["ours"]]).median
    rows = []
    for name, runs in results.items():
        speed = Spread.of([each["tokens_per_second"] for each in runs])
        memory = max(each["memory"] for each in runs) / 2**20
        size = runs[0]["sequences"]
        rows.append((name, speed, f"{best / speed.median:.2f}", size, f"{memory:,.0f}", runs[0]["products"]))
    columns = ("side", "new tokens/s", "ours over it", "at once", "peak MiB", "products in")
    title = f"{work.questions} questions x {work.samples}, prefix {PREFIX}, question {QUESTION}, {new} new tokens"
    show_table(f"{title}, {work.dtype} weights", columns, rows)
    own, theirs = (
        results["ours"][0]["products"],
        {each[0]["products"] for name, each in results.items() if name != "ours"},
    )
    if {own} != theirs:
        print(f"  products: ours in {own}, the others in {', '.join(sorted(theirs))}, from {work.dtype} weights")


def main() -> None:
    """Compare, print the tables, write the report."""
    about = (__doc__ or "").splitlines()
    parser = argparse.ArgumentParser(description=about[0], epilog=about[4])
    parser.add_argument("--out", type=Path, help="JSON file for the report")
    parser.add_argument("--rounds", type=int, default=3, help="fresh processes of each side (medians are reported)")
    parser.add_argument("--dtype", choices=("bf16", "fp32", "best"), default="bf16", help="best: what is fastest here")
    parser.add_argument("--shape", choices=tuple(SHAPES), default="135M")
    parser.add_argument("--new", type=int, nargs="+", default=(40, 150), help="lengths of completions")
    parser.add_argument("--quick", action="store_true", help="one round, 40 new tokens only")
    parser.add_argument("--side", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.side:
        side_main(Work(**json.loads(asked.side)))
        return
    lengths, rounds = ((40,), 1) if asked.quick else (tuple(asked.new), asked.rounds)
    if rounds < 1 or min(lengths) < 1:
        parser.error(f"--rounds {rounds} --new {min(lengths)}: at least 1 round and 1 new token are needed")
    dtype = fastest() if asked.dtype == "best" else asked.dtype
    report = compare(Work("ours", dtype=dtype, shape=asked.shape, lengths=lengths), rounds)
    if asked.out:
        report.write(asked.out)
        print(f"\nwritten to {asked.out}")


def fastest() -> str:
    """The type whose products are fastest here."""
    rates = product_rates()
    return max(rates, key=lambda kind: max(rates[kind].values()))


def side_main(work: Work) -> None:
    """Run one side and print its result."""
    emit({"rates": product_rates(work.shape)} if work.kind == "rates" else SIDES[work.kind](work))


if __name__ == "__main__":
    main()
