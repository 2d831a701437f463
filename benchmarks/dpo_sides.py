"""The sides of `benchmarks.dpo`, each in a process of its own: the loop of Ramify, and TRL's DPOTrainer."""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from benchmarks.pairs import EOS, PAD, SEED, Ids, Steps, long_prompts, rubric_pairs
from benchmarks.products import Products
from benchmarks.setting import VOCABULARY, lora_settings, peak_memory, random_model, trl_settings

COMPLETIONS = (2, 4, 8, 16)
LEARNING_RATE = 1e-4
BETA = 0.1
PATIENCE = 60.0  # seconds after which a first step is not repeated: what warming up would change is lost in it


@dataclass(frozen=True)
class Work:
    """What one side does.

    Attributes:
        kind: `ours`, `trl` or `trl_default`.
        task: `long` or `rubric`.
        dtype: of the weights: `fp32` or `bf16`.
        steps: optimizer steps; the first one warms up.
        shape: of the model.
        pairs: of an optimizer step of `long`.
        completions: of a prompt of `long`.
        students: of an optimizer step of `rubric`.
        at_once: pairs that TRL at its best computes at once; 0: one on a CPU, all of a step elsewhere.
        data, tokenizer: of `rubric`.
    """

    kind: str
    task: str = "long"
    dtype: str = "bf16"
    steps: int = 3
    shape: str = "135M"
    pairs: int = 8
    completions: int = COMPLETIONS[-1]
    students: int = 1
    at_once: int = 0
    data: str = ""
    tokenizer: str = ""

    def make_steps(self) -> Steps:
        """The pairs of each step, those of like length beside each other."""
        if self.task == "long":
            return long_prompts(self.steps, self.pairs, self.completions)
        steps = rubric_pairs(self.steps, self.students, Path(self.data), Path(self.tokenizer))
        return [sorted(step, key=lambda pair: pair.tokens) for step in steps]


class Watch:
    """Time stamps at the end of each step; the products of the first one are counted."""

    def __init__(self) -> None:
        self.products = Products()
        self.losses: list[float] = []
        self._stamps: list[float] = []

    def begin(self) -> None:
        """The first step begins."""
        self._stamps.append(time.perf_counter())
        self.products.__enter__()

    def done(self) -> None:
        """A step has ended."""
        self._stamps.append(time.perf_counter())
        if len(self._stamps) == 2:
            self.products.__exit__(None, None, None)

    @property
    def seconds(self) -> list[float]:
        """Of each step, the first one included."""
        return [after - before for before, after in zip(self._stamps, self._stamps[1:], strict=False)]

    @property
    def timed(self) -> list[float]:
        """Of the steps that count: all but the first, or the first when there is no other."""
        return self.seconds[1:] or self.seconds

    @property
    def enough(self) -> bool:
        """Whether the first step took so long that no other is needed."""
        return len(self.seconds) == 1 and self.seconds[0] > PATIENCE


def ours(work: Work, steps: Steps) -> dict[str, Any]:
    """The training loop of Ramify."""
    from peft import get_peft_model

    from ramify.base.config import DPO, Train
    from ramify.base.runs import create_run
    from ramify.model.fused import fuse
    from ramify.train.loop import Job, Loop
    from ramify.train.preference import Preference
    from ramify.train.reference import compute_references

    network = get_peft_model(on_device(random_model(work.shape, work.dtype)), lora_settings())
    draw_adapter(network)
    fuse(network)
    watch = Watch()

    class Watcher:
        """A progress that keeps time."""

        def start(self, stage: str, total: int, done: int = 0) -> None:
            if stage == "training":
                watch.begin()

        def update(self, done: int, **values: float) -> None:
            if "loss" in values:
                watch.losses.append(values["loss"])
                watch.done()

        def note(self, message: str) -> None:
            print(message, file=sys.stderr)

        def close(self) -> None:
            pass

    settings = Train(
        lr=LEARNING_RATE,
        max_steps=len(steps),
        batch_size=len(steps[0]),
        schedule="constant",
        warmup=0.0,
        tensorboard=False,
    )
    pairs = in_order(steps, settings)
    with network.disable_adapter():
        references = compute_references(network, pairs, None, settings.micro_tokens, Watcher())
    objective = Preference(pairs, references.train, DPO(beta=BETA))
    with tempfile.TemporaryDirectory() as folder:
        run = create_run(Path(folder), None)
        job = Job(network, objective, None, settings, SEED, run, save_weights=lambda _: None)
        state = Loop(job, None, Watcher()).run()
    return measured(work, watch, steps, references.seconds, state.computed_tokens)


def in_order(steps: Steps, settings: Any) -> Any:
    """The pairs as training data, placed so that the loop's own shuffle brings them back into their order."""
    import numpy as np

    from ramify.train.pairs import PairSet
    from ramify.train.schedule import Schedule

    size = len(steps[0])
    groups = tuple(tuple(range(start, start + size)) for start in range(0, size * len(steps), size))
    schedule = Schedule.of(groups, settings, SEED)
    places = [place for step in range(len(steps)) for place in schedule.indices(step)]
    pairs = [pair for _, pair in sorted(zip(places, (pair for step in steps for pair in step), strict=True))]
    prompts = {pair.prompt: None for pair in pairs}
    place_of = {prompt: place for place, prompt in enumerate(prompts)}
    return PairSet(
        prompts=tuple(np.array(prompt, np.int32) for prompt in prompts),
        prompt_of=tuple(place_of[pair.prompt] for pair in pairs),
        chosen=tuple(np.array(pair.chosen, np.int32) for pair in pairs),
        rejected=tuple(np.array(pair.rejected, np.int32) for pair in pairs),
        groups=groups,
    )


def trl(work: Work, steps: Steps) -> dict[str, Any]:
    """TRL's DPOTrainer, at its best or at its defaults."""
    from datasets import Dataset
    from transformers import TrainerCallback
    from trl import DPOTrainer

    watch, reference = Watch(), [0.0]

    class Watcher(TrainerCallback):  # type: ignore[misc]
        """A callback that keeps time."""

        def on_train_begin(self, *_: Any, **__: Any) -> None:
            watch.begin()

        def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            watch.done()
            control.should_training_stop |= watch.enough

        def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, float], **_: Any) -> None:
            if "loss" in logs:
                watch.losses.append(float(logs["loss"]))

    class Trainer(DPOTrainer):  # type: ignore[misc]
        """Keeps the time of the reference that is computed before the first step."""

        def compute_ref_log_probs(self, *arguments: Any) -> Any:
            began = time.perf_counter()
            found = super().compute_ref_log_probs(*arguments)
            reference[0] += time.perf_counter() - began
            return found

    best = work.kind == "trl"
    network = on_device(random_model(work.shape, work.dtype if best else "fp32"))
    dtype, pairs = network.dtype, [pair for step in steps for pair in step]
    with tempfile.TemporaryDirectory() as folder:
        trainer = Trainer(
            model=network,
            args=dpo_config(work, steps, folder),
            train_dataset=Dataset.from_list([as_text(pair) for pair in pairs]),
            processing_class=tokenizer(),
            peft_config=lora_settings(),
            callbacks=[Watcher()],
        )
        refuse_other_ids(trainer.train_dataset, pairs)
        draw_adapter(trainer.model)
        if best:
            trainer.model.to(dtype)
        trainer.train()
    computed = trl_tokens(steps, pairs_at_once(work, len(steps[0])))
    return measured(work, watch, steps, reference[0], computed)


def dpo_config(work: Work, steps: Steps, folder: str) -> Any:
    """DPOConfig; what is not named here is TRL's default."""
    from trl import DPOConfig

    at_once = pairs_at_once(work, len(steps[0]))
    best = {"bf16": False, "gradient_checkpointing": False, "precompute_ref_log_probs": True}
    return DPOConfig(
        per_device_train_batch_size=at_once,
        gradient_accumulation_steps=len(steps[0]) // at_once,
        max_steps=len(steps),
        learning_rate=LEARNING_RATE,
        beta=BETA,
        max_length=None,
        **trl_settings(folder, SEED),
        **(best if work.kind == "trl" else {}),
    )


def pairs_at_once(work: Work, pairs: int) -> int:
    """Pairs that TRL computes at once: of an even split of the step."""
    import torch

    most = work.at_once or (pairs if torch.cuda.is_available() else 1) if work.kind == "trl" else 8
    return max(size for size in range(1, min(most, pairs) + 1) if pairs % size == 0)


def as_text(pair: Ids) -> dict[str, str]:
    """A row of TRL's, in the words of `tokenizer`; TRL adds eos itself."""

    def words(ids: Sequence[int]) -> str:
        return " ".join(map(str, ids))

    prompt, chosen, rejected = words(pair.prompt), words(pair.chosen[:-1]), words(pair.rejected[:-1])
    return {"prompt": prompt, "chosen": f" {chosen}", "rejected": f" {rejected}"}


def tokenizer() -> Any:
    """A tokenizer whose words are the ids themselves, so that TRL computes on given ids."""
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from tokenizers.pre_tokenizers import WhitespaceSplit
    from transformers import PreTrainedTokenizerFast

    words = {"<eos>": EOS, "<pad>": PAD, **{str(each): each for each in range(2, VOCABULARY)}}
    raw = Tokenizer(WordLevel(words, unk_token="<pad>"))
    raw.pre_tokenizer = WhitespaceSplit()
    return PreTrainedTokenizerFast(tokenizer_object=raw, eos_token="<eos>", pad_token="<pad>")


def refuse_other_ids(rows: Any, pairs: Sequence[Ids]) -> None:
    """Stop when TRL would train on other sequences.

    Raises:
        SystemExit: it would.
    """
    seen = [Ids(*(tuple(row[f"{name}_ids"]) for name in ("prompt", "chosen", "rejected"))) for row in rows]
    if seen != list(pairs):
        raise SystemExit("TRL tokenised the pairs to other ids")


def draw_adapter(network: Any) -> None:
    """The same initial adapter on every side."""
    import torch
    from peft.tuners.lora import LoraLayer

    torch.manual_seed(SEED)
    for module in network.modules():
        if isinstance(module, LoraLayer):
            module.reset_lora_parameters("default", True)


def on_device(network: Any) -> Any:
    """On the GPU when there is one."""
    import torch

    return network.to("cuda") if torch.cuda.is_available() else network


def trl_tokens(steps: Steps, at_once: int) -> int:
    """Tokens of TRL's padded batches, in all steps."""
    total = 0
    for step in steps:
        for at in range(0, len(step), at_once):
            part = step[at : at + at_once]
            longest = max(len(pair.prompt) + max(len(pair.chosen), len(pair.rejected)) for pair in part)
            total += 2 * len(part) * longest
    return total


def measured(work: Work, watch: Watch, steps: Steps, reference: float, computed: int) -> dict[str, Any]:
    """What a side reports. `reference` is its time in seconds before the first step; `computed` tokens of all steps."""
    pairs, all_pairs = len(steps[0]), sum(map(len, steps))
    step_seconds = sum(watch.timed) / len(watch.timed)
    return {
        "work": asdict(work),
        "seconds_per_pair": step_seconds / pairs + reference / all_pairs,
        "reference_seconds_per_pair": reference / all_pairs,
        "seconds": watch.seconds,
        "losses": watch.losses,
        "memory": peak_memory(),
        "tokens": sum(pair.tokens for step in steps for pair in step),
        "computed_tokens": computed,
        "products": watch.products.summary(),
    }
