"""The command line: help is instant, errors are one line with a hint and an exit code, results go to stdout."""

from __future__ import annotations

import errno
import io
import json
import os
import shlex
import string
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from rich.console import Console
from train_setup import model_folder, pairs_file
from typer.testing import CliRunner

from ramify.base.config import RunConfig
from ramify.base.errors import ConfigError, ModelError, RunError, TrainingError
from ramify.base.runs import Run, create_run
from ramify.base.types import Sample, Stop
from ramify.cli.errors import BAD_INPUT, FAILED, INTERRUPTED, OK, describe, report
from ramify.cli.main import app, main
from ramify.cli.settings import config_from, given
from ramify.console import Bars, SampleBar

__all__ = ["model_folder"]


class Done:
    """How a command ended."""

    def __init__(self, code: int, out: str, err: str) -> None:
        self.code, self.out, self.err = code, out, err


Ramify = Callable[..., Done]
ANY_TASK = """
from ramify.base.types import Reason, Verdict

class Anything:
    name, fewshot, system = "anything", None, None

    def problems(self, split, n):
        return []

    def grade(self, problem, sample):
        return Verdict(problem.id, sample.index, 1.0, Reason.CORRECT)

    def completion(self, problem):
        return "x"

task = Anything()
"""


@pytest.fixture
def ramify(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Ramify:
    """Run a command line in this process, through `main`."""

    def run(*arguments: object) -> Done:
        monkeypatch.setattr(sys, "argv", ["ramify", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            main()
        out, err = capsys.readouterr()
        return Done(int(ended.value.code or 0), out, err)

    return run


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return pairs_file(tmp_path_factory.mktemp("data") / "pairs.json", rows=8)


def settings(model: Path, rows: Path, out: Path) -> list[str]:
    return [
        f"model={model}",
        f"data.train={rows}",
        f"out={out}",
        "prompt.chat_template=plain",
        "train.dtype=fp32",
        "train.device=cpu",
        "train.epochs=1",
        "train.batch_size=4",
        "train.tensorboard=false",
        "sample.max_new_tokens=4",
    ]


def test_help_names_every_command(ramify: Ramify) -> None:
    for arguments in ((), ("--help",), ("-h",)):
        done = ramify(*arguments)
        assert done.code == OK
        for command in ("demo", "train", "sample", "eval", "compare", "generate", "data"):
            assert command in done.out


@pytest.mark.parametrize(
    "command", ["demo", "train", "sample", "eval", "compare", "generate", "data show", "data check"]
)
def test_every_command_has_help(command: str) -> None:
    done = CliRunner().invoke(app, [*command.split(), "--help"])
    assert done.exit_code == 0 and "Usage:" in done.output


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["evla"], "No such command 'evla'. Did you mean 'eval'?"),
        (["eval"], "Missing argument"),
        (["demo", "--qick"], "No such option: --qick"),
        (["train"], "data.train is not set"),
        (["train", "missing.yaml"], "missing.yaml: no such file"),
        (["train", "data.trian=x.json"], "did you mean 'train'?"),
        (["train", "data.train=x", "train.lr=fast"], "train.lr = 'fast'"),
        (["train", "a.yaml", "b.yaml"], "one configuration file is allowed"),
        (["train", "data.train=x", "--resume", "--overwrite"], "exclude each other"),
        (["generate", "missing.txt"], "missing.txt: no such file"),
        (["generate", "missing.txt", "--resume"], "--resume needs --out"),
        (["compare", "a"], "two runs are needed"),
        (["compare", "nowhere/a", "nowhere/b"], "nowhere/a: not there"),
        (["eval", "nano", "task.nam=x"], "did you mean 'name'?"),
        (["eval", "nano", "lora.r=4"], "lora.r: ramify eval does not read it"),
        (["data", "check", "missing.json"], "missing.json: no such file"),
        (["data", "check", "a.json", "b.json"], "one file of training rows is allowed, found a.json b.json"),
        (["data", "check", "a.json", "data.train=b.json"], "found a.json data.train=b.json"),
        (["data", "show", "a.json", "model=no/such-model"], "no/such-model"),
        (["train", "data.train=2024"], "data.train = 2024: a path or text is needed"),
        (["train", "data.train=x", "lora.targets=q_proj"], "'all-linear' or a list is needed"),
        (["train", "data.train=x", "train.early_stop=2"], "train.early_stop = 2 needs validation rows"),
        (["train", "data.train=missing.json", f"prompt.system={'long ' * 100}"], "missing.json: no such file"),
        (["train", "=3"], "is not of the form key=value"),
        (["train", f"{'a/' * 200}=3"], "unknown setting"),
        (["sample", "data.train=x", "sample.n=4"], "all sample.n = 4 samples would be equal"),
        (["generate", "missing.txt", "--out", "x", "--resume", "--overwrite"], "exclude each other"),
        (["generate", "missing.txt", "--n", "2", "--temperature", "0"], "missing.txt: no such file"),
    ],
)
def test_bad_input_is_one_line(ramify: Ramify, arguments: list[str], message: str) -> None:
    done = ramify(*arguments)
    assert not any(line.startswith("error: unexpected") for line in done.err.splitlines())
    assert done.code in (FAILED if "nowhere" in message else BAD_INPUT,)
    first, *rest = done.err.strip().splitlines()
    assert first.startswith("error: ") and message in first
    assert all(line.startswith("hint: ") for line in rest) and len(rest) <= 1
    assert not done.out


@pytest.mark.parametrize(
    ("error", "code", "words"),
    [
        (ConfigError("a\nb", hint="c"), BAD_INPUT, "a b"),
        (ModelError("m"), BAD_INPUT, "m"),
        (RunError("r"), FAILED, "r"),
        (TrainingError("t"), FAILED, "t"),
        (KeyboardInterrupt(), INTERRUPTED, "interrupted"),
        (MemoryError(), FAILED, "out of memory"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory"), FAILED, "out of memory"),
        (OSError(errno.ENOSPC, "No space left on device", "runs/x"), FAILED, "no space left on the disk: runs/x"),
        (ZeroDivisionError("division by zero"), FAILED, "unexpected ZeroDivisionError: division by zero"),
    ],
)
def test_every_exception_has_a_line_and_a_code(error: BaseException, code: int, words: str) -> None:
    message, _, found = describe(error)
    assert (message, found) == (words, code)


def test_errors_are_printed_without_traceback_unless_asked(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail() -> None:
        raise ValueError("what")

    monkeypatch.delenv("RAMIFY_DEBUG", raising=False)
    assert report(fail) == FAILED
    assert "Traceback" not in capsys.readouterr().err
    monkeypatch.setenv("RAMIFY_DEBUG", "1")
    assert report(fail) == FAILED
    assert "Traceback" in capsys.readouterr().err


def test_interrupts_end_with_130_and_say_how_to_go_on(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupt() -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(sys, "argv", ["ramify", "train", "x.yaml"])
    assert report(interrupt) == INTERRUPTED
    assert report(lambda: INTERRUPTED) == INTERRUPTED
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "interrupted" and "--resume" in lines[1] and len(lines) == 4


def test_a_closed_pipe_is_silent() -> None:
    code = "from ramify.cli.main import main; import sys; sys.argv = ['ramify', '--help']; main()"
    reader = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert reader.stdout is not None and reader.stderr is not None
    reader.stdout.close()
    assert reader.stderr.read().decode() == ""
    reader.wait()
    reader.stderr.close()


def test_python_dash_m_is_ramify_and_knows_its_version(root: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": str(root / "src")}
    done = subprocess.run(
        [sys.executable, "-m", "ramify", "--version"], capture_output=True, text=True, env=environment, check=True
    )
    assert done.stdout.startswith("ramify ")


def test_settings_come_from_file_then_overrides_then_options(tmp_path: Path) -> None:
    recipe = tmp_path / "mine.yaml"
    recipe.write_text("seed: 1\ntrain: {lr: 0.5, epochs: 2}\n", encoding="utf-8")
    config = config_from([str(recipe), "train.lr=1e-3"], given({"seed": 7, "adapter": None}))
    assert (config.seed, config.train.lr, config.train.epochs) == (7, 1e-3, 2)
    assert config.out == Path("runs/mine")
    assert config_from(["method=rft", "sample.temperature=0.7"]).out == Path("runs/rft")
    assert config_from(["out=elsewhere"]).out == Path("elsewhere")


def test_question_answer_files_train_and_evaluate_by_command_line_alone(
    ramify: Ramify, model_folder: Path, pairs: Path, tmp_path: Path
) -> None:
    command = settings(model_folder, pairs, tmp_path / "run")
    dry = ramify("train", *command, "--dry-run")
    assert dry.code == OK and "8" in dry.out and not (tmp_path / "run").exists()
    done = ramify("train", *command)
    assert done.code == OK, done.err
    assert Run(tmp_path / "run").record["status"] == "finished" and Run(tmp_path / "run").adapter is not None
    again = ramify("train", *command)
    assert again.code == FAILED and "--resume goes on with it" in again.err
    measured = ramify("eval", tmp_path / "run", "--problems", pairs, "--out", tmp_path / "run" / "eval")
    assert measured.code == OK and "accuracy" in measured.out and "problems" in measured.out
    base = ramify("eval", model_folder, "--problems", pairs, "--out", tmp_path / "base", "sample.max_new_tokens=4")
    assert base.code == OK
    both = ramify("compare", tmp_path / "base", tmp_path / "run", "--out", tmp_path / "c.html")
    assert both.code == OK and "no difference can be shown" in both.out
    assert "<html" in (tmp_path / "c.html").read_text(encoding="utf-8")


def test_sample_writes_graded_samples(ramify: Ramify, model_folder: Path, pairs: Path, tmp_path: Path) -> None:
    command = settings(model_folder, pairs, tmp_path / "draws")
    done = ramify("sample", *command, "sample.n=2", "sample.temperature=1.0")
    assert done.code == OK, done.err
    assert "questions" in done.out
    assert len((tmp_path / "draws" / "samples.jsonl").read_text(encoding="utf-8").splitlines()) == 16


def test_generate_completes_files_and_resumes(ramify: Ramify, model_folder: Path, tmp_path: Path) -> None:
    prompts, out = tmp_path / "prompts.txt", tmp_path / "out.jsonl"
    prompts.write_text("one\n\ntwo\nthree\n", encoding="utf-8")
    command = ["generate", prompts, "--model", model_folder, "--max-new-tokens", 3, "--n", 2, "--out", out]
    assert ramify(*command).code == OK
    rows = [json.loads(line) for line in out.read_text(encoding="utf-8").splitlines()]
    assert [row["prompt"] for row in rows] == ["one", "two", "three"]
    assert all(len(row["completions"]) == 2 for row in rows)
    torn = out.read_text(encoding="utf-8").splitlines(keepends=True)
    out.write_text(torn[1] + torn[0][:20], encoding="utf-8")  # one row done, the next cut off in writing
    assert ramify(*command, "--resume").code == OK
    assert [json.loads(line) for line in out.read_text(encoding="utf-8").splitlines()] == rows
    prompts.write_text("one\n\nnew\nthree\n", encoding="utf-8")  # line 3 is another prompt now
    edited = ramify(*command, "--resume")
    assert edited.code == OK and "note: 1 rows of" in edited.err
    again = [json.loads(line) for line in out.read_text(encoding="utf-8").splitlines()]
    assert [row["prompt"] for row in again] == ["one", "new", "three"] and [again[0], again[2]] == [rows[0], rows[2]]


def test_generate_never_empties_a_file_unasked(ramify: Ramify, model_folder: Path, tmp_path: Path) -> None:
    prompts, out = tmp_path / "prompts.txt", tmp_path / "out.jsonl"
    prompts.write_text("one\n", encoding="utf-8")
    out.write_text("dear\n", encoding="utf-8")
    command = ["generate", prompts, "--max-new-tokens", 3]
    for arguments, message in (
        (["--out", out], f"{out}: exists already"),
        (["--out", out, "--overwrite", "--model", "no/such/model"], "no/such/model"),
        (["--out", out, "--resume", "--model", model_folder], f"{out}:1: not valid JSON"),
        (["--out", prompts], "is the file of the prompts"),
        (["--out", prompts, "--overwrite"], "is the file of the prompts"),
        (["--out", tmp_path, "--overwrite"], "is not a file"),
        (["--out", out, "--overwrite", "--resume"], "exclude each other"),
    ):
        done = ramify(*command, *arguments)
        assert done.code in (FAILED, BAD_INPUT) and message in done.err and "unexpected" not in done.err
        assert (prompts.read_text(encoding="utf-8"), out.read_text(encoding="utf-8")) == ("one\n", "dear\n")
    assert ramify(*command, "--out", out, "--overwrite", "--model", model_folder).code == OK
    assert json.loads(out.read_text(encoding="utf-8"))["prompt"] == "one"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"\xff\xfe\x00\x01", ":1: not valid UTF-8"),
        (b'{"id": ["1"], "prompt": "one", "completion": "x"}\n', ":1: not a row that `ramify generate` wrote"),
        (b'{"id": "1", "completion": "x"}\n', ":1: not a row that"),
        (b'{"id": "1", "prompt": "one", "completions": 3}\n', ":1: not a row that"),
        (b'{"id": "1"\n{"id": "2", "prompt": "x", "completion": "y"}\n', ":1: not valid JSON"),
    ],
)
def test_only_rows_of_generate_are_resumed(ramify: Ramify, tmp_path: Path, content: bytes, message: str) -> None:
    prompts, out = tmp_path / "prompts.txt", tmp_path / "out.jsonl"
    prompts.write_text("one\n", encoding="utf-8")
    out.write_bytes(content)
    done = ramify("generate", prompts, "--out", out, "--resume")
    assert done.code == BAD_INPUT and f"error: {out}{message}" in done.err
    assert out.read_bytes() == content


def test_generate_reads_standard_input(ramify: Ramify, model_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO("How many?\n"))
    done = ramify("generate", "-", "--model", model_folder, "--max-new-tokens", 3)
    assert set(json.loads(done.out)) == {"id", "prompt", "completion", "stop"}
    monkeypatch.setattr(sys, "stdin", io.StringIO('{"prompt": "How many?"}\n'))
    done = ramify("generate", "-", "--model", model_folder)
    assert done.code == BAD_INPUT and "JSON rows" in done.err
    monkeypatch.setattr(sys, "stdin", io.StringIO("\n"))
    assert "no prompts" in ramify("generate", "-", "--model", model_folder).err


def test_generate_says_what_is_wrong_with_its_input(
    ramify: Ramify, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"caf\xe9 au lait?\n"), encoding="latin-1"))
    assert "standard input: not valid UTF-8 at byte 3" in ramify("generate", "-").err
    (tmp_path / "prompts.json").write_text('["How?", "Why?"]', encoding="utf-8")
    assert "prompts stand one a line" in ramify("generate", tmp_path / "prompts.json").err
    mixed = '{"prompt": "a"}\n{"prompt": "b", "completion": "c"}\n'
    (tmp_path / "prompts.jsonl").write_text(mixed, encoding="utf-8")
    assert "1 of 2 rows hold no problem" in ramify("generate", tmp_path / "prompts.jsonl").err


def test_a_stopped_generate_promises_only_what_is_kept(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupt() -> None:
        raise KeyboardInterrupt

    for arguments, hint in (
        (["-"], "nothing is kept"),
        (["p.txt", "--out", "o"], "are kept; the same"),
        (["p.txt", "--out=o"], "are kept; the same"),
    ):
        monkeypatch.setattr(sys, "argv", ["ramify", "generate", *arguments])
        assert report(interrupt) == INTERRUPTED
        assert hint in capsys.readouterr().err


def test_what_is_printed_is_utf8_whatever_the_terminal_says(root: Path) -> None:
    code = (
        "import sys; from ramify.cli import main\n"
        "def say(command): print('a → b'); print('…', file=sys.stderr); return 0\n"
        "main.report = say; main.main()"
    )
    environment = {**os.environ, "PYTHONPATH": str(root / "src"), "PYTHONIOENCODING": "cp1252"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, env=environment, check=True)
    assert (done.stdout.decode().strip(), done.stderr.decode().strip()) == ("a → b", "…")


def test_the_command_after_sampling_trains_the_same_model(ramify: Ramify, model_folder: Path, tmp_path: Path) -> None:
    folder = tmp_path / "my draws"
    command = settings(model_folder, pairs_file(tmp_path / "pairs.json", rows=8), folder)
    task = tmp_path / "any.py"
    task.write_text(ANY_TASK, encoding="utf-8")
    stop = f"sample.stop=[{','.join(string.ascii_letters)}]"
    chosen = ["method=rft", f"task.name={task}", "data.limit=4", "sample.n=4", "sample.temperature=1.0", stop]
    chosen += ["sample.max_new_tokens=60", "select.strategy=distinct"]
    done = ramify("sample", *command, *chosen)
    assert done.code == OK, done.err
    (line,) = [line for line in done.err.splitlines() if line.startswith("next: ")]
    following = shlex.split(line.removeprefix("next: ramify "))
    assert following == [
        "train", str(folder / "config.yaml"), "method=sft", f"data.train={folder}", "data.limit=null",
        f"out={folder}-sft",
    ]  # fmt: skip
    done = ramify(*following)
    assert done.code == OK, done.err
    record = Run(Path(f"{folder}-sft")).record
    assert record["config"]["model"] == str(model_folder) and record["config"]["prompt"]["chat_template"] == "plain"
    rows = (folder / "rows.jsonl").read_text(encoding="utf-8").splitlines()
    assert str(folder) in record["parents"] and record["data"]["rows"] == len(rows) > 4  # data.limit was of questions


def test_data_show_and_check(ramify: Ramify, model_folder: Path, pairs: Path) -> None:
    shown = ramify("data", "show", pairs, f"model={model_folder}", "prompt.chat_template=plain", "--n", 2)
    assert shown.code == OK and shown.out.count("tokens trained") == 2 and "<answer>10</answer>" in shown.out
    checked = ramify("data", "check", pairs, f"data.valid={pairs}")
    assert checked.code == OK and "questions that also occur in train" in checked.out


def test_bars_show_progress_at_a_terminal_and_only_notes_elsewhere() -> None:
    screen, log = io.StringIO(), io.StringIO()
    for file, is_terminal in ((screen, True), (log, False)):
        bars = Bars(Console(file=file, force_terminal=is_terminal, width=120))
        bars.start("training", 10, done=2)
        bars.update(5, loss=1.2345, tokens_per_second=4321.0, unknown=1.0)
        bars.note("eight [rows] were left out")
        bars.close()
        bars.close()
    assert "training" in screen.getvalue() and "loss 1.234" in screen.getvalue() and "4,321 tok/s" in screen.getvalue()
    assert "5/10" in screen.getvalue()
    assert log.getvalue() == "note: eight [rows] were left out\n"
    log = io.StringIO()
    Bars(Console(file=log, width=20)).note("a line that is longer than the console")
    assert log.getvalue() == "note: a line that is longer than the console\n"


def test_sample_bar_counts_samples() -> None:
    screen = io.StringIO()
    with SampleBar("sampling", 2, Bars(Console(file=screen, force_terminal=True, width=120))) as bar:
        for index in range(2):
            bar(Sample("p", index, (1, 2, 3), (0.0,) * 3, "", Stop.EOS))
    assert "2/2" in screen.getvalue() and "tok/s" in screen.getvalue()


def test_a_run_that_was_never_measured_is_named(ramify: Ramify, tmp_path: Path) -> None:
    create_run(tmp_path / "a", RunConfig())
    done = ramify("compare", tmp_path / "a", tmp_path / "a")
    assert done.code == FAILED and "not an evaluated run" in done.err and "ramify eval" in done.err


def test_a_stopped_evaluation_says_how_to_go_on_and_does(
    ramify: Ramify, model_folder: Path, pairs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    command = ["eval", model_folder, "--problems", pairs, "--out", tmp_path / "e", "--max-new-tokens", 4]
    count = SampleBar.__call__

    def stop(bar: SampleBar, sample: Sample) -> None:
        count(bar, sample)
        if bar._done == 3:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(SampleBar, "__call__", stop)
        stopped = ramify(*command)
    assert stopped.code == INTERRUPTED and "the same command goes on" in stopped.err
    done = ramify(*command)
    assert done.code == OK and "going on with 3 of 8 samples" in done.err
    other = ramify(*command, "seed=1")
    assert other.code == FAILED and "holds another evaluation (seed: 42 → 1)" in other.err
    assert "hint: choose another folder (--out)" in other.err
    assert ramify(*command, "seed=1", "--overwrite").code == OK


def test_evaluation_into_a_file_is_one_line(ramify: Ramify, model_folder: Path, pairs: Path, tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("x", encoding="utf-8")
    done = ramify("eval", model_folder, "--problems", pairs, "--out", tmp_path / "mine")
    assert done.code == FAILED and done.err.splitlines()[-2].endswith("mine: is a file, a folder is needed")
    assert (tmp_path / "mine").read_text(encoding="utf-8") == "x"
