"""Voices: what a name opens, that it speaks as it was trained, that the base stays beside it, what is kept open."""

from __future__ import annotations

import json
import shutil
import socket
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from chat_setup import Letters, Script
from train_setup import make_config, model_folder, pairs_file

import ramify
from ramify import nano
from ramify.base.config import Prompting, Sampling
from ramify.base.errors import ConfigError, ModelError
from ramify.base.runs import Run
from ramify.base.types import Conversation, Message
from ramify.export.gguf.writer import write_gguf
from ramify.prompts.renderer import Renderer
from ramify.sample.engine import TreeSampler
from ramify.sample.llamacpp.choices import find_gguf
from ramify.sample.service import Request, Service
from ramify.serve.answers import Answers
from ramify.serve.cabinet import Cabinet
from ramify.serve.manners import Manners, manners_of
from ramify.serve.voice import CHAT, Voice
from ramify.serve.voices import Prompter, base_and_adapter, choices, open_voice
from ramify.train import sft

__all__ = ["model_folder"]

QUESTION = (Message("user", "How many grams are in 6 kg?"),)
HOT = Sampling(temperature=1.0, max_new_tokens=12)
CPU = {"dtype": "fp32", "device": "cpu"}


def said(voice: Voice, conversation: Conversation = QUESTION, settings: Sampling = HOT, seed: int = 1) -> str:
    ids = voice.renderer.prompt_ids(conversation)
    return "".join(piece.text for piece in voice.service.submit(Request(ids, settings, seed)))


def written(model: ramify.Model, conversation: Conversation = QUESTION, settings: Sampling = HOT, seed: int = 1) -> str:
    """The same by the engine itself."""
    ids = Renderer(model.loaded.tokenizer, model.prompting).prompt_ids(conversation)
    return "".join(TreeSampler(model.loaded).stream(ids, settings, seed=seed))


@pytest.fixture(scope="module")
def run(model_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An adapter, trained with a template of its own, a system turn and worked turns."""
    folder = tmp_path_factory.mktemp("runs")
    worked = folder / "worked.yaml"
    worked.write_text('turns: [{user: "1 m in cm?", assistant: "<answer>100</answer>"}]', encoding="utf-8")
    prompt = {"chat_template": "plain", "system": "Be brief.", "fewshot": str(worked)}
    sample = {"max_new_tokens": 9, "stop": ["</answer>"]}
    rows = pairs_file(folder / "pairs.json", rows=8)
    config = make_config(model_folder, rows, folder / "tuned", prompt=prompt, sample=sample, train={"lr": 0.3})
    return sft.run(config).folder


@pytest.fixture(scope="module")
def full_run(model_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A full fine-tuning."""
    folder = tmp_path_factory.mktemp("runs")
    rows = pairs_file(folder / "pairs.json", rows=4)
    return sft.run(make_config(model_folder, rows, folder / "full", lora=None, train={"max_steps": 2})).folder


def test_a_model_speaks_by_its_own_template() -> None:
    with closing(open_voice("nano", **CPU)) as voice:
        model = ramify.load("nano", **CPU)
        assert voice.name == "nano" and voice.system is None and voice.settings == CHAT and voice.base is None
        assert voice.service.max_length == 2048
        assert voice.renderer.prompt_ids(QUESTION) == Renderer(model.loaded.tokenizer).prompt_ids(QUESTION)
        assert said(voice) == written(model)


def test_a_run_speaks_as_it_was_trained(run: Path) -> None:
    with closing(open_voice(str(run), **CPU)) as voice:
        model = ramify.load(run, **CPU)
        assert voice.system == "Be brief." and (voice.settings.max_new_tokens, voice.settings.stop) == (
            9,
            ("</answer>",),
        )
        text = voice.renderer.text(QUESTION)
        assert text == "Be brief.\n\n1 m in cm? <answer>100</answer>\n\nHow many grams are in 6 kg?"
        assert said(voice) == written(model)
        other = (Message("system", "Be long."), *QUESTION)
        assert voice.renderer.text(other).startswith("Be long.\n\n1 m in cm?")
        assert voice.renderer.prompt_ids(other) == Renderer(model.loaded.tokenizer, model.prompting).prompt_ids(other)
        none = voice.renderer.text((Message("system", ""), *QUESTION))
        assert none == "1 m in cm? <answer>100</answer>\n\nHow many grams are in 6 kg?"


def test_options_go_before_what_the_run_has(run: Path) -> None:
    with closing(open_voice(str(run), system="Other.", chat_template="model", **CPU)) as voice:
        assert voice.system == "Other." and voice.renderer.text(QUESTION).startswith(
            "<|im_start|>system\nOther.<|im_end|>"
        )
    with closing(open_voice(str(run), system="", **CPU)) as voice:
        assert voice.system is None and voice.renderer.text(QUESTION).startswith("1 m in cm?")


def test_an_adapter_on_a_model_speaks_as_its_run(run: Path, model_folder: Path) -> None:
    with closing(open_voice(str(model_folder), adapter=str(run), **CPU)) as voice:
        assert voice.system == "Be brief." and voice.name == str(model_folder)
        assert said(voice) == written(ramify.load(run, **CPU))


def test_base_and_adapter_stand_on_one_copy_of_the_weights(run: Path, model_folder: Path) -> None:
    base, tuned = base_and_adapter(str(run), **CPU)
    with closing(base), closing(tuned):
        assert (base.name, tuned.name) == (str(model_folder), str(run))
        assert base.service._loaded.network is tuned.service._loaded.network
        ids = tuned.renderer.prompt_ids(QUESTION)
        assert ids == base.renderer.prompt_ids(QUESTION)
        alone = ramify.load(model_folder, chat_template="plain", **CPU)
        expected = ["".join(TreeSampler(alone.loaded).stream(ids, HOT, seed=1)), written(ramify.load(run, **CPU))]
        assert expected[0] != expected[1]
        found = ["", ""]
        for which, piece in Answers([(each.service, Request(ids, HOT, 1)) for each in (base, tuned)]):
            found[which] += piece.text  # both at the same time
        assert found == expected


def test_after_full_fine_tuning_the_base_is_the_model_it_began_with(full_run: Path, model_folder: Path) -> None:
    base, tuned = base_and_adapter(str(full_run), **CPU)
    with closing(base), closing(tuned):
        assert base.name == str(model_folder) and base.base is None
        assert said(tuned) == written(ramify.load(full_run, **CPU))
        assert base.renderer.prompt_ids(QUESTION) == tuned.renderer.prompt_ids(QUESTION)
        assert said(base) == written(ramify.load(model_folder, chat_template="plain", **CPU))
    with pytest.raises(ConfigError, match="nothing says what it was before"):
        base_and_adapter("nano", **CPU)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("nano", {"n_ctx": 512}, "n_ctx = 512: nano: it sets the room of a GGUF file"),
        ("nano", {"chat_template": "chatnl"}, "did you mean 'chatml'?"),
        ("nan", {}, "did you mean 'nano'?"),
        ("no/such/place.gguf", {}, "no/such/place.gguf: no such file"),
        ("nosuch, Q4", {}, "no such folder, and no repository of the hub"),
        ("nano", {"device": "tpu"}, "tpu"),
    ],
)
def test_what_cannot_be_opened_is_one_line(name: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises((ConfigError, ModelError)) as refused:
        open_voice(name, **options)
    assert message in str(refused.value)


# --- GGUF files ---


@pytest.fixture(scope="module")
def export(tmp_path_factory: pytest.TempPathFactory, run: Path) -> Path:
    """What an export has of nano, with the prompting of a run."""
    folder = tmp_path_factory.mktemp("exports") / "out"
    folder.mkdir()
    for kind in ("f32", "q8_0"):
        write_gguf(nano.path(), folder / f"nano-{kind.upper()}.gguf", kind)
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        for place in ("tokenizer", "merged"):
            (folder / place).mkdir(exist_ok=True)
            shutil.copy(nano.path() / name, folder / place / name)
    for name in ("config.json", "generation_config.json", "model.safetensors"):
        shutil.copy(nano.path() / name, folder / "merged" / name)
    prompt = Prompting(system="Be exact.", chat_template="gone.jinja").model_dump(mode="json")
    (folder / "export.json").write_text(
        json.dumps({"source": "gone", "prompt": prompt, "sample": {"stop": ["</answer>"]}}), encoding="utf-8"
    )
    return folder


def test_an_export_speaks_as_the_run_it_was_made_of(export: Path) -> None:
    with closing(open_voice(str(export))) as voice:
        assert voice.name == str(export) and voice.system == "Be exact." and voice.settings.stop == ("</answer>",)
        model = ramify.load("nano", system="Be exact.", **CPU)
        assert voice.renderer.prompt_ids(QUESTION) == Renderer(model.loaded.tokenizer, model.prompting).prompt_ids(
            QUESTION
        )
        assert said(voice, settings=Sampling(max_new_tokens=8)) == written(model, settings=Sampling(max_new_tokens=8))
    for name in (export / "nano-Q8_0.gguf", f"{export}:q8_0", f"{export}, Q8"):
        with closing(open_voice(str(name), n_ctx=256)) as voice:
            assert voice.service.max_length == 256 and voice.system == "Be exact."
    with closing(open_voice(str(export / "merged"), **CPU)) as voice:
        assert voice.system == "Be exact."
        assert said(voice, settings=Sampling(max_new_tokens=8)) == written(model, settings=Sampling(max_new_tokens=8))


def test_a_gguf_file_alone_speaks_by_its_own_template(export: Path, tmp_path: Path) -> None:
    alone = Path(shutil.copy(export / "nano-F32.gguf", tmp_path))
    with closing(open_voice(str(alone))) as voice:
        model = ramify.load("nano", **CPU)
        assert voice.renderer.prompt_ids(QUESTION) == Renderer(model.loaded.tokenizer).prompt_ids(QUESTION)
        assert voice.base is None and voice.settings == CHAT
        assert said(voice, settings=Sampling(max_new_tokens=8)) == written(model, settings=Sampling(max_new_tokens=8))
    for setting in ({"adapter": "x"}, {"dtype": "fp32"}, {"device": "cpu"}):
        with pytest.raises(ConfigError, match="a GGUF file is used as it is"):
            open_voice(str(alone), **setting)
    with pytest.raises(ConfigError, match="nothing says what it was before"):
        base_and_adapter(str(alone))


def empty(folder: Path, *names: str) -> Path:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"")
    return folder


def test_an_export_s_files_are_chosen_by_quantisation(tmp_path: Path) -> None:
    folder = empty(tmp_path / "out", "export.json", "m-Q8_0.gguf", "m-F16.gguf", "m-Q4_K_M.gguf", "m-adapter-F16.gguf")
    assert find_gguf(str(folder)) == folder / "m-F16.gguf"
    assert find_gguf(f"{folder}:Q4_k_m") == folder / "m-Q4_K_M.gguf"
    with pytest.raises(ModelError, match="unknown quantisation 'q4_k_n'; did you mean 'q4_k_m'"):
        find_gguf(f"{folder}:q4_k_n")
    merged = empty(tmp_path / "merged only", "export.json", "merged/config.json")
    assert find_gguf(str(merged)) is None and find_gguf("nano") is None and find_gguf("runs/x:y") is None
    adapter = empty(tmp_path / "adapter only", "export.json", "m-adapter-F16.gguf")
    (adapter / "export.json").write_text('{"source": "nano", "prompt": {}}')
    with pytest.raises(ModelError, match="the export holds an adapter only"):
        open_voice(str(adapter))
    (adapter / "export.json").write_text("{")
    with pytest.raises(ModelError, match=r"export\.json: cannot be read"):
        open_voice(str(adapter))


def test_a_model_of_another_place_does_not_speak_as_the_export_one_stands_in(
    export: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(export)
    assert manners_of("nano") == Manners()
    assert manners_of("nano-Q8_0.gguf").prompting.system == manners_of("merged").prompting.system == "Be exact."


def test_a_part_of_a_name_chooses_a_file(tmp_path: Path) -> None:
    names = (
        "a.q4_0.gguf",
        "sub/A-Q8_0.gguf",
        "mmproj-Q8_0.gguf",
        "b-Q6_K-00001-of-00002.gguf",
        "b-Q6_K-00002-of-00002.gguf",
    )
    folder = empty(tmp_path / "files", *names)
    assert find_gguf(f"{folder}, Q4") == folder / "a.q4_0.gguf"
    assert find_gguf(f"{folder},q8") == folder / "sub/A-Q8_0.gguf"
    assert find_gguf(f"{folder}, q6") == folder / names[3]
    with pytest.raises(ModelError, match=r"no file is \*Q5\*.gguf \(there: a.q4_0.gguf, b-Q6_K-00001"):
        find_gguf(f"{folder}, Q5")
    empty(folder, "c-Q4_K_S.gguf", "c-Q4_K_M.gguf")
    assert find_gguf(f"{folder}, Q4") == folder / "c-Q4_K_M.gguf"
    empty(folder, "d-Q4_K_M.gguf")
    with pytest.raises(ModelError, match=r"4 files are \*Q4\*\.gguf: a\.q4_0"):
        find_gguf(f"{folder}, Q4")
    strange = empty(tmp_path / "a, b", "m-F16.gguf", "export.json")
    assert find_gguf(str(strange)) == strange / "m-F16.gguf"


@pytest.fixture
def hub_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The hub's cache as it is after a download, in a folder of its own."""
    from huggingface_hub import constants

    cache = tmp_path / "hub"
    repository = cache / "models--who--Tiny-GGUF"
    empty(
        repository / "snapshots" / "abc",
        "tiny-Q4_K_M.gguf",
        "tiny-Q8_0-00001-of-00002.gguf",
        "tiny-Q8_0-00002-of-00002.gguf",
    )
    empty(repository / "refs", "main")
    (repository / "refs" / "main").write_text("abc")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(cache))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    return repository / "snapshots" / "abc"


def test_what_was_fetched_is_found_without_the_hub(hub_cache: Path) -> None:
    assert find_gguf("who/Tiny-GGUF, Q4") == hub_cache / "tiny-Q4_K_M.gguf"
    assert find_gguf("who/Tiny-GGUF,q8") == hub_cache / "tiny-Q8_0-00001-of-00002.gguf"
    for name in ("who/Tiny-GGUF, Q5", "who/Other-GGUF, Q4"):
        with pytest.raises(ModelError, match="not in the local cache, and the hub cannot be reached"):
            find_gguf(name)


def test_what_was_fetched_is_not_asked_for_again(hub_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import constants

    asked = []

    def look_up(host: str, *_: object, **__: object) -> None:
        asked.append(host)
        raise socket.gaierror(socket.EAI_NONAME, "not known")

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    assert find_gguf("who/Tiny-GGUF, Q4") == hub_cache / "tiny-Q4_K_M.gguf"
    assert find_gguf("who/Tiny-GGUF, Q8") == hub_cache / "tiny-Q8_0-00001-of-00002.gguf"
    assert not asked
    with pytest.raises(ModelError, match="not in the local cache, and the hub cannot be reached"):
        find_gguf("who/Tiny-GGUF, Q5")
    assert asked


def test_choices_are_trained_runs_exports_and_gguf_files(tmp_path: Path, run: Path) -> None:
    shutil.copytree(run, tmp_path / "tuned")
    (tmp_path / "unfinished").mkdir()
    (tmp_path / "unfinished" / "run.json").write_text("{}")
    empty(tmp_path, "out/export.json", "out/m-F16.gguf", "out/m-Q8_0.gguf", "out/merged/config.json")
    empty(tmp_path, "whole/export.json", "whole/merged/config.json", "deep/er/x.gguf", ".hidden/y.gguf")
    found = [str(Path(name).relative_to(tmp_path)) for name in choices(tmp_path)]
    assert found == ["deep/er/x.gguf", "out:f16", "out:q8_0", "tuned", "whole"]
    assert Run(tmp_path / "tuned").adapter is not None and choices(tmp_path / "nowhere") == []


# --- what is kept open ---


class Opener:
    """Opens scripts, and remembers them."""

    def __init__(self) -> None:
        self.opened: list[str] = []
        self.scripts: dict[str, Script] = {}

    def __call__(self, name: str) -> Voice:
        if name == "broken":
            raise ModelError("broken: cannot be read")
        self.opened.append(name)
        self.scripts[name] = Script(["x"])
        service: Service = self.scripts[name]
        return Voice(name, service, Letters())

    @property
    def open(self) -> set[str]:
        return {name for name, script in self.scripts.items() if not script.closed}


def test_a_voice_is_opened_when_the_choice_changes() -> None:
    opener = Opener()
    cabinet = Cabinet(opener)
    for name in ("a", "a", "b", "b", "a"):
        with cabinet.lend(name) as (voice,):
            assert voice.name == name and opener.open == {name} and cabinet.names == (name,)
    assert opener.opened == ["a", "b", "a"]
    cabinet.close()
    assert not opener.open and cabinet.names == ()


def test_the_one_used_longest_ago_makes_room() -> None:
    opener = Opener()
    cabinet = Cabinet(opener, keep=2)
    for name in ("a", "b", "a", "c"):
        with cabinet.lend(name):
            pass
    assert opener.open == {"a", "c"} and cabinet.names == ("a", "c")
    with cabinet.lend("d", "a", "d") as voices:
        assert [each.name for each in voices] == ["d", "a", "d"] and opener.open == {"a", "d"}
    with pytest.raises(ConfigError, match="3 models at once: at most 2"), cabinet.lend("a", "b", "c"):
        pass
    with pytest.raises(ConfigError, match="keep = 0"):
        Cabinet(opener, keep=0)


def test_what_cannot_be_opened_leaves_the_others_and_is_tried_again() -> None:
    opener = Opener()
    cabinet = Cabinet(opener, keep=2)
    for _ in range(2):
        with pytest.raises(ModelError, match="broken"), cabinet.lend("a", "broken"):
            pass
    assert opener.open == {"a"} and opener.opened == ["a"]
    with cabinet.lend("b", "c"):
        assert opener.open == {"b", "c"}


def test_a_voice_that_is_lent_is_never_closed() -> None:
    opener = Opener()
    cabinet = Cabinet(opener, keep=1)
    waiting, came = threading.Event(), threading.Event()

    def other() -> None:
        waiting.set()
        with cabinet.lend("b"):
            came.set()

    with cabinet.lend("a"):
        thread = threading.Thread(target=other)
        thread.start()
        waiting.wait()
        with cabinet.lend("a"):  # whoever wants the same does not wait
            assert opener.open == {"a"}
        assert not came.is_set()
    thread.join()
    assert came.is_set() and opener.open == {"b"}


def test_while_one_is_opened_the_others_come_and_go() -> None:
    opener, begun, go = Opener(), threading.Event(), threading.Event()

    def slowly(name: str) -> Voice:
        if name == "slow":
            begun.set()
            go.wait()
        return opener(name)

    cabinet = Cabinet(slowly, keep=2)

    def visit(name: str) -> tuple[str, ...]:
        with cabinet.lend(name) as (voice,):
            assert voice.name == name
        return cabinet.names

    with ThreadPoolExecutor(4) as pool:
        try:
            assert pool.submit(visit, "a").result(timeout=60) == ("a",)
            slow = [pool.submit(visit, "slow") for _ in range(2)]
            begun.wait()
            assert pool.submit(visit, "a").result(timeout=60) == ("a",)
            closing = pool.submit(cabinet.close)
        finally:
            go.set()
        for each in slow:
            each.result(timeout=60)
        closing.result(timeout=60)
    assert opener.opened.count("slow") >= 1
    cabinet.close()
    assert not opener.open


def test_many_threads_get_what_they_ask_for() -> None:
    opener, wrong = Opener(), []
    cabinet = Cabinet(opener, keep=2)

    def visit(number: int) -> Iterator[None]:
        for step in range(20):
            names = {0: ("a",), 1: ("b", "c"), 2: ("c", "a")}[(number + step) % 3]
            with cabinet.lend(*names) as voices:
                right = [each.name for each in voices] == list(names)
                if not right or any(each.service.closed for each in voices) or len(opener.open) > 2:
                    wrong.append(names)
            yield

    threads = [threading.Thread(target=lambda number=number: [*visit(number)]) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong and not cabinet._lent


def test_a_prompter_says_what_a_renderer_says(model_folder: Path) -> None:
    renderer = Renderer(ramify.load(model_folder, **CPU).loaded.tokenizer, Prompting(fewshot="unit_conversion"))
    prompter = Prompter(renderer)
    assert prompter.system == renderer.conversation(())[0].content
    assert prompter.prompt_ids(QUESTION) == renderer.prompt_ids(QUESTION)
    assert prompter.text(QUESTION) == renderer.text(QUESTION)


def test_answers_are_stopped_and_fail_together(tmp_path: Path) -> None:
    endless, quick = Script(["tick", None]), Script(["x"])
    asked = [(each, Request((1,), HOT, 0)) for each in (endless, quick)]
    answers = Answers(asked)
    found = []
    for which, piece in answers:
        found.append((which, piece.text))
        if {(0, "tick"), (1, "x")} <= set(found):
            answers.stop()  # the endless one ends by it, or this would never end
    assert set(found) <= {(0, "tick"), (1, "x"), (1, "")}

    class Failing(Script):
        def submit(self, request: Request) -> Any:
            raise ModelError("it failed")

    cancelled = Script(["tick", None])
    with pytest.raises(ModelError, match="it failed"):
        list(Answers([(cancelled, asked[0][1]), (Failing(["x"]), asked[0][1])]))
