from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from ramify.base.config import LoRA, RunConfig
from ramify.base.config_file import load_config, parse_config, yaml_scalar
from ramify.base.errors import ConfigError


def write(folder: Path, text: str) -> Path:
    path = folder / "config.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def refused(*overrides: str, path: Path | None = None) -> str:
    """The one line that a refused configuration is refused with."""
    with pytest.raises(ConfigError) as caught:
        load_config(path, overrides)
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_no_file_and_no_overrides_are_the_defaults() -> None:
    assert load_config(None) == RunConfig()


def test_the_file_wins_over_defaults_and_overrides_win_over_the_file(tmp_path: Path) -> None:
    path = write(tmp_path, "model: some/model\ntrain: {lr: 0.5, batch_size: 4}\n")
    config = load_config(path, ["train.batch_size=8"])
    assert (config.model, config.train.lr, config.train.batch_size) == ("some/model", 0.5, 8)
    assert config.train.epochs == RunConfig().train.epochs


def test_an_empty_file_is_all_defaults(tmp_path: Path) -> None:
    assert load_config(write(tmp_path, "# nothing yet\n")) == RunConfig()


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-4", 1e-4),
        ("5E-4", 5e-4),
        ("1", 1),
        ("0.1", 0.1),
        ("true", True),
        ("null", None),
        ("", ""),
        ("nano", "nano"),
        ("[a, b]", ["a", "b"]),
        ("'1e-4'", 1e-4),
        ("a=b", "a=b"),
        ("'2024'", "2024"),
        ("Answer, then end with #### n", "Answer, then end with #### n"),
        ("#### n", "#### n"),
        (" two\nlines ", "two\nlines"),
        ("'quoted # text'", "quoted # text"),
        ("inf", "inf"),
    ],
)
def test_values_of_overrides(text: str, value: Any) -> None:
    found = yaml_scalar(text)
    assert found == value
    assert type(found) is type(value)


def test_scientific_notation_arrives_as_a_number_from_the_command_line_and_from_a_file(tmp_path: Path) -> None:
    assert load_config(None, ["train.lr=1e-4"]).train.lr == 1e-4
    assert load_config(write(tmp_path, "train:\n  lr: 1e-4\n")).train.lr == 1e-4


def test_an_override_reaches_into_a_section_that_is_null(tmp_path: Path) -> None:
    assert load_config(None, ["lora=null"]).lora is None
    assert load_config(write(tmp_path, "lora: null\n"), ["lora.r=4"]).lora == LoRA(r=4)


def test_a_later_override_wins() -> None:
    assert load_config(None, ["seed=1", "seed=2"]).seed == 2


def test_overrides_hold_lists() -> None:
    lora = load_config(None, ["lora.targets=[q_proj, v_proj]"]).lora
    assert lora is not None
    assert lora.targets == ("q_proj", "v_proj")


def test_unknown_settings_are_refused_with_the_nearest_name() -> None:
    message = refused("train.learning_rat=1")
    assert "'train.learning_rat'" in message
    message = refused("train.batchsize=1")
    assert "did you mean 'batch_size'?" in message
    assert "micro_tokens" in message  # the allowed ones are listed
    assert "did you mean 'train'?" in refused("trian.lr=1")
    assert "did you mean 'temperature'?" in refused("sample.temprature=1")
    assert "did you mean 'rslora'?" in refused("lora.rs_lora=true")


def test_a_setting_without_its_section_is_told_where_it_lives() -> None:
    assert "did you mean 'train.lr'?" in refused("lr=1e-4")
    assert "did you mean 'train.lr'?" in refused("lora.lr=1e-4")
    assert "did you mean 'data.limit' or 'evaluate.limit'?" in refused("limit=3")
    assert "did you mean 'model'?" in refused("train.model=nano")


def test_a_wrong_type_or_range_names_field_and_value() -> None:
    message = refused("train.batch_size=many")
    assert "train.batch_size" in message
    assert "'many'" in message
    assert "train.lr" in refused("train.lr=-1")
    assert "sample.top_p" in refused("sample.top_p=1.5")
    assert "'sgd'" in refused("method=sgd")
    assert "'sft', 'rft' or 'dpo'" in refused("method=sgd")


def test_a_scalar_where_a_section_is_needed_names_the_section(tmp_path: Path) -> None:
    assert "train" in refused(path=write(tmp_path, "train: 3\n"))


def test_infinite_and_undefined_numbers_are_refused() -> None:
    assert "train.lr" in refused("train.lr=.nan")
    assert "train.lr" in refused("train.lr=inf")


def test_overrides_of_a_wrong_form_are_refused() -> None:
    assert "key=value" in refused("train.lr")
    assert "key=value" in refused("=3")
    assert "not valid YAML" in refused("model=[a")


def test_contradicting_settings_are_refused() -> None:
    assert "temperature" in refused("method=rft", "sample.n=4", "sample.temperature=0")
    assert "sample.temperature is 0, so all sample.n = 4 samples would be equal" in refused("sample.n=4")


@pytest.mark.parametrize("name", ["early_stop", "eval_every"])
def test_settings_of_validation_need_validation_rows(name: str) -> None:
    message = refused(f"train.{name}=3")
    assert f"train.{name} = 3 needs validation rows" in message and "data.valid" in message
    assert getattr(load_config(None, [f"train.{name}=3", "data.valid=v.json"]).train, name) == 3


@pytest.mark.parametrize(
    ("override", "message", "hint"),
    [
        ("data.train=2024", "data.train = 2024: a path or text is needed", "./2024"),
        ("out=2024", "out = 2024: a path is needed", "./2024"),
        ("data.valid=[a]", "data.valid = ['a']: a path or text is needed", ""),
        ("lora.targets=q_proj", "lora.targets = 'q_proj': 'all-linear' or a list is needed", "lora.targets=[q_proj]"),
        ("sample.stop=###", "sample.stop = '###': a list is needed", "sample.stop=[###]"),
        ("prompt.system=3", "prompt.system = 3: text is needed", "quotes"),
        ("prompt.system=Rule: be brief", "prompt.system = {'Rule': 'be brief'}: text is needed", "quotes"),
        ("train=3", "train = 3: a section {…} is needed", ""),
    ],
)
def test_a_value_of_the_wrong_kind_gets_one_clear_line(override: str, message: str, hint: str) -> None:
    found = refused(override)
    assert found.startswith(f"command line: {message}") and hint in found
    assert "union" not in found and len(found) < 200


def test_a_key_that_stands_twice_is_refused(tmp_path: Path) -> None:
    message = refused(path=write(tmp_path, "train: {lr: 1}\nmodel: nano\ntrain: {epochs: 2}\n"))
    assert "config.yaml:3: 'train' is given twice (first on line 1)" in message
    assert "config.yaml:3: 'lr' is given" in refused(path=write(tmp_path, "train:\n  lr: 1\n  lr: 2\n"))
    assert "config.yaml:1: 'lr' is given" in refused(path=write(tmp_path, "train: {lr: 1, lr: 2}\n"))
    assert "nested too deeply" in refused(path=write(tmp_path, "train: &a {lr: *a}\n"))


def test_a_file_that_is_missing_not_yaml_or_not_a_mapping(tmp_path: Path) -> None:
    assert "no such file" in refused(path=tmp_path / "absent.yaml")
    message = refused(path=write(tmp_path, "model: nano\ntrain:\n  lr: [1\nseed: 2\n"))
    assert f"{tmp_path / 'config.yaml'}:" in message
    assert message.split("config.yaml:")[1][0] in "34"  # the line where the list is still open
    assert "a mapping of settings" in refused(path=write(tmp_path, "- 1\n- 2\n"))
    (tmp_path / "config.yaml").write_bytes(b"model: \xff\xfe\n")
    assert "config.yaml" in refused(path=tmp_path / "config.yaml")
    assert "cannot be read" in refused(path=tmp_path)


def test_the_saved_form_is_read_back_equal() -> None:
    config = load_config(None, ["train.lr=1e-4", "data.train=rows.jsonl", "lora.targets=[q_proj]", "out=runs/a"])
    text = yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False)
    assert parse_config(yaml.safe_load(text)) == config


def test_configurations_cannot_be_changed() -> None:
    name = "seed"
    with pytest.raises(ValueError, match="frozen"):
        setattr(RunConfig(), name, 3)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("sample.temperature=1e-5", r"sample\.temperature = 1e-05: 0 \(greedy\) or at least 0\.0001"),
        ("sample.temperature=-1", r"sample\.temperature = -1: "),
        ("sample.stop=['']", r"sample\.stop.* = '': .*at least 1 character"),
    ],
)
def test_settings_that_cannot_be_drawn_with_are_refused(override: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load_config(None, [override])
    for fine in ("sample.temperature=0", "sample.temperature=1e-4", "sample.stop=[x]"):
        load_config(None, [fine])
