"""Options scored on the tree equal separate forward passes; the folder is that of any evaluation, and resumes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from test_cli import Ramify, ramify
from test_evaluate_run import StopAt
from train_setup import model_folder

import ramify as package
from ramify.base.config import RunConfig
from ramify.base.config_file import parse_config
from ramify.base.errors import ConfigError, DataError, LengthError, RunError
from ramify.base.runs import Run
from ramify.base.types import Reason, Sample
from ramify.evaluate.folder import drawn_before
from ramify.evaluate.options import FILE, OptionScorer, OptionScores
from ramify.evaluate.run import evaluate, load, problems_of
from ramify.evaluate.scores import paired
from ramify.evaluate.settings import evaluation_config
from ramify.evaluate.stages import stage
from ramify.prompts.renderer import Renderer

__all__ = ["model_folder", "ramify"]

RATINGS = {"Loops": ("right", "off by one", "endless"), "Names": ("clear", "unclear")}


def rows(students: int = 4) -> list[dict[str, Any]]:
    """A lab with two criteria: prompts share the statement, and those of a student the code."""
    found = []
    for student in range(students):
        for criterion, names in RATINGS.items():
            prompt = f"Sum the numbers up to n.\nCode: for (i = {student}; i < n; i++) s += i;\nTask: {criterion}"
            options = [json.dumps({"answer": f"{'ABC'[i]}. {name}"}) for i, name in enumerate(names)]
            found.append(
                {
                    "id": f"{student}/{criterion}",
                    "prompt": prompt,
                    "answer": "ABC"[student % len(names)],
                    "options": options,
                    "category": f"sums / {criterion}",
                    "meta": {"lab": "sums", "student": f"s{student}", "criterion": criterion, "split": "unseen"},
                }
            )
    return found


@pytest.fixture(scope="module")
def problems(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("data") / "grades.jsonl", rows())


def write(path: Path, found: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in found), encoding="utf-8")
    return path


def config(model: Path, problems: Path, out: Path | None = None, **sections: Any) -> RunConfig:
    values: dict[str, Any] = {
        "model": str(model),
        "task": {"name": "grading"},
        "evaluate": {"problems": str(problems), "scoring": "options"},
        "sample": {"max_new_tokens": 6},
        "train": {"dtype": "fp32", "device": "cpu", "micro_tokens": 700},
        "out": None if out is None else str(out),
    }
    for name, value in sections.items():
        values[name] = {**values[name], **value}
    return parse_config(values)


def scores_in(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / FILE).read_text(encoding="utf-8").splitlines()]


@torch.no_grad()
def by_forward(network: Any, prompt: tuple[int, ...], options: list[tuple[int, ...]]) -> list[float]:
    """Log-probability of each option with one padded batch of Transformers' own forward, prompts computed each time."""
    length = len(prompt) + max(map(len, options))
    ids = torch.tensor([[*prompt, *option, *[0] * (length - len(prompt) - len(option))] for option in options])
    mask = torch.tensor(
        [[1] * (len(prompt) + len(each)) + [0] * (length - len(prompt) - len(each)) for each in options]
    )
    logprobs = network(input_ids=ids, attention_mask=mask, use_cache=False).logits.double().log_softmax(-1)
    return [
        sum(float(logprobs[i, len(prompt) + j - 1, token]) for j, token in enumerate(option))
        for i, option in enumerate(options)
    ]


@pytest.mark.parametrize("micro_tokens", [1, 700, 100_000])
def test_options_on_the_tree_equal_padded_forwards(
    micro_tokens: int, model_folder: Path, problems: Path, tmp_path: Path
) -> None:
    settings = config(model_folder, problems, tmp_path / "e", train={"micro_tokens": micro_tokens})
    found = evaluate(settings)
    reference = load(settings).network
    renderer = Renderer(load(settings).tokenizer, settings.prompt)
    for problem, row, sample in zip(found.problems, scores_in(tmp_path / "e"), found.samples, strict=True):
        options = [renderer.completion_ids(problem.prompt, option) for option in problem.options]
        expected = by_forward(reference, renderer.prompt_ids(problem.prompt), options)
        assert row["problem_id"] == problem.id
        assert row["logprobs"] == pytest.approx(expected, rel=1e-5, abs=1e-4)
        assert row["probabilities"] == pytest.approx(torch.tensor(expected).softmax(0).tolist(), abs=1e-4)
        best = expected.index(max(expected))
        assert (sample.text, sample.token_ids) == (problem.options[best], options[best])
        assert sample.logprob == pytest.approx(expected[best], rel=1e-5, abs=1e-4)


def test_problems_share_what_their_prompts_share(model_folder: Path, problems: Path) -> None:
    settings = config(model_folder, problems)
    loaded = load(settings)
    scorer = OptionScorer(loaded, Renderer(loaded.tokenizer, settings.prompt), 100_000)
    asked = problems_of(settings)
    renderer = scorer.renderer
    asked_options = [(p.prompt, option) for p in asked for option in p.options]
    alone = sum(len(renderer.prompt_ids(p)) + len(renderer.completion_ids(p, option)) for p, option in asked_options)
    computed: list[int] = []
    body = loaded.network.get_input_embeddings()
    handle = body.register_forward_hook(lambda _, given, __: computed.append(given[0].numel()))
    choices: list[Sample] = []
    scorer.choose(asked, seed=0, wanted={p.id for p in asked}, on_choice=lambda sample, _: choices.append(sample))
    handle.remove()
    assert len(computed) == 1 and len(choices) == len(asked)
    assert computed[0] < 0.5 * alone  # one statement for all, one code for each student, one prompt for its options


def test_the_folder_is_that_of_an_evaluation(model_folder: Path, problems: Path, tmp_path: Path) -> None:
    seen: list[str] = []
    found = evaluate(
        config(model_folder, problems, tmp_path / "e"), on_sample=lambda sample: seen.append(sample.problem_id)
    )
    assert found.n == len(seen) == 8 and found.ratings is not None
    assert found.ratings.overall.unusable == 0 and set(found.ratings.groups) == {"category", "lab", "split"}
    again = stage(tmp_path / "e")
    assert (again.scores, tuple(again.samples)) == (found.scores, found.samples)
    assert again.ratings == found.ratings
    document = json.loads((tmp_path / "e" / "scores.json").read_text(encoding="utf-8"))
    assert document["ratings"]["overall"]["n"] == 8 and document["ratings"]["overall"]["confusions"]
    assert all(verdict.reason in (Reason.CORRECT, Reason.WRONG) for verdict in found.verdicts)
    written = evaluate(config(model_folder, problems, tmp_path / "w", evaluate={"scoring": "generate"}))
    assert written.ratings is not None and not (tmp_path / "w" / FILE).exists()
    assert paired(stage(tmp_path / "w").verdicts, again.verdicts).n == 8


@pytest.mark.parametrize("at", [1, 5, 8])
def test_a_stopped_scoring_goes_on_to_the_same_files(
    at: int, model_folder: Path, problems: Path, tmp_path: Path
) -> None:
    evaluate(config(model_folder, problems, tmp_path / "straight"))
    settings = config(model_folder, problems, tmp_path / "e")
    with pytest.raises(KeyboardInterrupt):
        evaluate(settings, on_sample=StopAt(at))
    with (tmp_path / ".e.new" / FILE).open("a", encoding="utf-8") as file:
        file.write('{"problem_id": "torn')
    assert drawn_before(settings, problems_of(settings)) == at
    rest = StopAt()
    evaluate(settings, on_sample=rest)
    assert rest.seen == 8 - at
    for name in ("problems.jsonl", "samples.jsonl", "verdicts.jsonl", FILE):
        assert (tmp_path / "e" / name).read_bytes() == (tmp_path / "straight" / name).read_bytes()
    assert Run(tmp_path / "e").record["status"] == "finished"


def test_generation_and_options_are_not_mixed(model_folder: Path, problems: Path, tmp_path: Path) -> None:
    evaluate(config(model_folder, problems, tmp_path / "e"))
    with pytest.raises(RunError, match=r"evaluate\.scoring: 'options' → 'generate'"):
        evaluate(config(model_folder, problems, tmp_path / "e", evaluate={"scoring": "generate"}))
    evaluate(config(model_folder, problems, tmp_path / "e", sample={"max_new_tokens": 9}))  # nothing is drawn


def test_where_an_evaluation_by_options_goes() -> None:
    plain = evaluation_config("nano", options={"task.name": "grading", "evaluate.problems": "test.jsonl"})
    scored = evaluation_config(
        "nano", options={"task.name": "grading", "evaluate.problems": "test.jsonl", "evaluate.scoring": "options"}
    )
    assert plain.out != scored.out and scored.out is not None and "-options-" in scored.out.name


def test_settings_of_drawing_are_refused(model_folder: Path, problems: Path) -> None:
    with pytest.raises(ConfigError, match=r"sample\.n = 4: evaluate\.scoring=options draws nothing"):
        evaluate(config(model_folder, problems, sample={"n": 4, "temperature": 1.0}))
    with pytest.raises(ConfigError, match=r"sample\.temperature = 0\.5"):
        evaluate(config(model_folder, problems, sample={"temperature": 0.5}))


def test_problems_without_a_choice_are_named(model_folder: Path, tmp_path: Path) -> None:
    path = write(tmp_path / "bare.jsonl", [{"id": "x", "prompt": "1 kg in g?", "answer": 1000}])
    settings = config(model_folder, path, task={"name": "unit_conversion"})
    with pytest.raises(DataError, match=r"bare\.jsonl:1: options: .* at least two"):
        evaluate(settings)


def test_options_that_are_too_long_are_counted_first(model_folder: Path, tmp_path: Path) -> None:
    found = rows(2)
    found[0]["prompt"] *= 10
    with pytest.raises(LengthError, match=r"3 of 10 options with their prompts exceed the model's 512 tokens"):
        evaluate(config(model_folder, write(tmp_path / "long.jsonl", found)))


def test_the_model_is_left_as_it_was(model_folder: Path, problems: Path) -> None:
    settings = config(model_folder, problems)
    loaded = load(settings)
    loaded.network.train()
    evaluate(settings, loaded=loaded)
    assert loaded.network.training


def test_the_command_line_scores_options(ramify: Ramify, model_folder: Path, problems: Path, tmp_path: Path) -> None:
    command = ["eval", model_folder, "--task", "grading", "--problems", problems, "train.dtype=fp32", "--scoring"]
    done = ramify(*command, "options", "--out", tmp_path / "e")
    assert done.code == 0 and "the most probable option" in " ".join(done.err.split())
    for part in ("kappa", "unusable", "category sums / Loops", "split unseen"):
        assert part in done.out
    assert (tmp_path / "e" / FILE).is_file()
    done = ramify(*command, "guess")
    assert done.code != 0 and "evaluate.scoring = 'guess': 'generate' or 'options' is needed" in done.err
    for idle in ("--max-new-tokens=9", "sample.top_p=0.5"):
        done = ramify(*command, "options", idle)
        assert done.code == 2 and "evaluate.scoring=options draws nothing" in done.err


def test_the_python_interface_scores_options(model_folder: Path, problems: Path) -> None:
    found = package.evaluate(str(model_folder), task="grading", problems=problems, scoring="options", dtype="fp32")
    assert found.ratings is not None and found.ratings.overall.n == 8


@pytest.mark.parametrize("logprobs", [(-1.0, -2.0), (-900.0, -901.0, -2000.0), (0.0, 0.0)])
def test_probabilities_are_shares_of_the_options(logprobs: tuple[float, ...]) -> None:
    found = OptionScores.of("p", logprobs)
    assert sum(found.probabilities) == pytest.approx(1)
    assert found.probabilities == pytest.approx(torch.tensor(logprobs, dtype=torch.float64).softmax(0).tolist())
    assert found.best == 0
