"""Measure a nano folder on held-out conversions: `python recipes/nano/measure.py DIR [--n 200]`.

Greedy answers through the chat template, batched with left padding, in three prompts: none, a plain system turn, and
the worked few-shot turns that ship with the package.
"""

from __future__ import annotations

import argparse
import json
import re
from pathlib import Path

import torch
import yaml
from transformers import AutoTokenizer, LlamaForCausalLM, PreTrainedTokenizerBase

import ramify.prompts
from ramify.tasks.conversions import questions

Messages = list[dict[str, str]]


def few_shot() -> Messages:
    """The system turn and worked turns of the package's file."""
    path = Path(ramify.prompts.__file__).with_name("fewshot_unit_conversion.yaml")
    data = yaml.safe_load(path.read_text(encoding="utf-8"))
    messages = [{"role": "system", "content": data["system"]}]
    for turn in data["turns"]:
        messages += [{"role": role, "content": turn[role]} for role in ("user", "assistant")]
    return messages


def complete(model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerBase, prompts: list[str], size: int) -> list[str]:
    """Greedy completions of at most 90 new tokens, `size` prompts at a time."""
    texts: list[str] = []
    for i in range(0, len(prompts), size):
        batch = tokenizer(
            prompts[i : i + size], return_tensors="pt", padding=True, padding_side="left", add_special_tokens=False
        )
        with torch.inference_mode():
            ids = model.generate(
                input_ids=batch.input_ids, attention_mask=batch.attention_mask, max_new_tokens=90, do_sample=False
            )
        texts += tokenizer.batch_decode(ids[:, batch.input_ids.shape[1] :], skip_special_tokens=True)
    return texts


def correct(text: str, gold: float) -> bool | None:
    """Within 5 % by the strict rule; None when no number stands in the tag."""
    found = re.search(r"<answer>\s*(-?[\d.]+)\s*</answer>", text)
    try:
        value = float(found[1]) if found else None
    except ValueError:
        value = None
    return None if value is None else abs(round(value, 3) - round(gold, 3)) < 0.05 * abs(round(gold, 3))


def measure(folder: Path, n: int, seed: int = 20, show: int = 3) -> dict[str, dict[str, float]]:
    """Accuracy and answer rate of every prompt on `n` held-out questions."""
    model = LlamaForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    problems = questions(n, seed, "valid")
    plain = [{"role": "system", "content": "You are a helpful assistant."}]
    results = {}
    for name, lead in (("base", []), ("base, plain system turn", plain), ("few-shot", few_shot())):
        prompts = [
            tokenizer.apply_chat_template(
                [*lead, {"role": "user", "content": p.prompt[-1].content}], tokenize=False, add_generation_prompt=True
            )
            for p in problems
        ]
        texts = complete(model, tokenizer, prompts, 50)
        marks = [correct(text, float(p.answer or 0)) for text, p in zip(texts, problems, strict=True)]
        results[name] = {
            "accuracy": sum(mark is True for mark in marks) / n,
            "answer_rate": sum(mark is not None for mark in marks) / n,
            "n": n,
        }
        for text, p in list(zip(texts, problems, strict=True))[:show]:
            print(f"[{name}] {p.prompt[-1].content} | {p.answer} | {text!r}")
    return results


def main() -> None:
    """Read the options and print the figures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--n", type=int, default=200)
    parser.add_argument("--show", type=int, default=3)
    a = parser.parse_args()
    print(json.dumps(measure(a.folder, a.n, show=a.show), indent=1))


if __name__ == "__main__":
    main()
