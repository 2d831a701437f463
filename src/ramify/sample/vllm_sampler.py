"""vLLM behind the same protocol (Kwon et al. 2023, arXiv 2309.06180), where it is installed; it needs a GPU as a rule.

Every sample is a request with a seed of its own, so it depends on (seed, problem, index) alone as far as vLLM's kernels
allow; prompts share what vLLM's prefix cache finds in common.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from importlib import import_module
from importlib.util import find_spec
from typing import Any

from ramify.base.config import RunConfig, Sampling
from ramify.base.errors import ConfigError, LengthError, ModelError
from ramify.base.rng import key
from ramify.base.types import Sample, Stop
from ramify.model.source import Source, resolve
from ramify.sample.sampler import OnSample, PromptTokens, wanted_indices
from ramify.sample.streaming import cut_at

_DTYPES = {"auto": "auto", "fp32": "float32", "bf16": "bfloat16", "fp16": "float16"}
_RANKS = (8, 16, 32, 64, 128, 256, 320, 512)  # what vLLM reserves room for
_STOPS = {"stop": Stop.EOS, "length": Stop.LENGTH}


class VllmSampler:
    """Draws with a vLLM engine; see `Sampler`.

    Args:
        engine: vLLM's `LLM`.
        policy: what samples are labelled with.
        stop_ids: tokens that end a completion.
        adapter: vLLM's `LoRARequest`, or None.
    """

    def __init__(self, engine: Any, policy: str, stop_ids: tuple[int, ...], adapter: Any = None) -> None:
        self._engine, self._policy, self._stop_ids, self._adapter = engine, policy, stop_ids, adapter

    @property
    def max_length(self) -> int:
        """Longest prompt with completion, in tokens."""
        return int(self._engine.llm_engine.model_config.max_model_len)

    def sample(
        self,
        prompts: Sequence[PromptTokens],
        settings: Sampling,
        *,
        seed: int,
        on_sample: OnSample | None = None,
        indices: Mapping[str, Sequence[int]] | None = None,
    ) -> list[list[Sample]]:
        """Draw completions; see `Sampler.sample`.

        Raises:
            LengthError: prompt and new tokens are more than vLLM was opened for; before the first token.
            DataError: a problem id twice.
        """
        wanted = wanted_indices(prompts, settings, indices)
        longest = max((len(p.ids) for p, some in zip(prompts, wanted, strict=True) if some), default=0)
        if longest + settings.max_new_tokens > self.max_length:
            raise LengthError(
                f"the longest prompt has {longest} tokens, with {settings.max_new_tokens} new ones they exceed the "
                f"{self.max_length} that vLLM was opened for"
            )
        steps = self._engine.llm_engine
        asked = {f"{p}-{index}": (p, index) for p, some in enumerate(wanted) for index in some}
        found: dict[tuple[int, int], Sample] = {}
        try:
            for name, (number, index) in asked.items():
                self._submit(name, prompts[number], settings, key("sample", seed, prompts[number].problem_id, index))
            while steps.has_unfinished_requests():
                for output in steps.step():
                    if output.finished:
                        number, index = asked[output.request_id]
                        sample = self._as_sample(prompts[number].problem_id, index, output.outputs[0], settings, seed)
                        found[number, index] = sample
                        if on_sample is not None:
                            on_sample(sample)
        except BaseException:
            steps.abort_request([name for name, place in asked.items() if place not in found])
            raise
        return [[found[number, index] for index in some] for number, some in enumerate(wanted)]

    def _submit(self, name: str, prompt: PromptTokens, settings: Sampling, seed: int) -> None:
        vllm = import_module("vllm")
        params = vllm.SamplingParams(
            temperature=settings.temperature,
            top_p=settings.top_p,
            top_k=settings.top_k or -1,
            min_p=settings.min_p,
            repetition_penalty=settings.repetition_penalty,
            max_tokens=settings.max_new_tokens,
            stop=list(settings.stop) or None,
            stop_token_ids=list(self._stop_ids),
            seed=seed & 0x7FFFFFFF,
            logprobs=0,  # of the drawn token alone
        )
        tokens = {"prompt_token_ids": list(prompt.ids)}
        self._engine.llm_engine.add_request(name, tokens, params, lora_request=self._adapter)

    def _as_sample(self, problem_id: str, index: int, drawn: Any, settings: Sampling, seed: int) -> Sample:
        ids = tuple(drawn.token_ids)
        logprobs = tuple(float(each[token].logprob) for token, each in zip(ids, drawn.logprobs, strict=True))
        if drawn.finish_reason not in _STOPS:
            raise ModelError(f"vLLM ended problem {problem_id!r} by {drawn.finish_reason!r}")
        by_string = isinstance(drawn.stop_reason, str)
        stop = Stop.STOP_STRING if by_string else _STOPS[drawn.finish_reason]
        return Sample(problem_id, index, ids, logprobs, cut_at(drawn.text, settings.stop), stop, self._policy, seed)


def open_vllm(config: RunConfig, stop_ids: tuple[int, ...]) -> VllmSampler:
    """vLLM with the model and the adapter that `config` names.

    Args:
        stop_ids: tokens that end a completion.

    Raises:
        ConfigError: vLLM is not installed.
        ModelError: there is no such model, or vLLM cannot open it, with its reason.
    """
    if find_spec("vllm") is None:
        raise ConfigError("engine = vllm needs vLLM, which is not installed", hint="pip install vllm")
    source = resolve(config.model, config.adapter)
    vllm: Any = import_module("vllm")
    adapter = None
    lora: dict[str, Any] = {}
    if source.adapter is not None:
        adapter = import_module("vllm.lora.request").LoRARequest("adapter", 1, str(source.adapter))
        lora = {"enable_lora": True, "max_lora_rank": _reserved_rank(source)}
    try:
        engine = vllm.LLM(
            model=source.location,
            revision=config.revision or source.revision,
            dtype=_DTYPES[config.train.dtype],
            max_num_seqs=config.sample.live,
            enable_prefix_caching=True,
            seed=config.seed,
            trust_remote_code=False,
            **lora,
        )
    except (RuntimeError, ValueError, OSError) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise ModelError(f"model {config.model}: vLLM cannot open it: {reason}") from None
    policy = config.model if config.adapter is None else f"{config.model}+{config.adapter}"
    return VllmSampler(engine, policy, stop_ids, adapter)


def _reserved_rank(source: Source) -> int:
    """The smallest of the ranks that vLLM reserves room for which holds the adapter's.

    Raises:
        ModelError: its rank is larger than all of them.
    """
    assert source.adapter is not None
    rank = int(json.loads((source.adapter / "adapter_config.json").read_text(encoding="utf-8"))["r"])
    if rank > _RANKS[-1]:
        raise ModelError(f"{source.adapter}: rank {rank} is more than vLLM holds ({_RANKS[-1]})")
    return next(each for each in _RANKS if each >= rank)
