"""Settings of a mix: what is refused, in one line, and that overrides reach a source by its name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from mix_setup import config

from ramify.base.config_mix import MixConfig
from ramify.base.errors import ConfigError

TWO = [{"name": "a", "from": "a.jsonl"}, {"name": "b", "from": "b.jsonl"}]


@pytest.mark.parametrize(
    ("values", "overrides", "message"),
    [
        ({"row": 3}, [], "unknown setting 'row'; did you mean 'rows'?"),
        ({}, ["weight=3"], "did you mean 'sources.weight'?"),
        ({}, ["sources.a.wieght=3"], "did you mean 'weight'?"),
        ({}, ["sources.c.weight=3"], "unknown entry 'c' (allowed: a, b)"),
        ({}, ["sources.a=3"], "names no setting (hint: for example sources.NAME.weight=2)"),
        ({}, ["sources.a.weight=0"], "weight = 0: Input should be greater than 0"),
        ({}, ["sources.a.erase.mod=drop"], "did you mean 'mode'?"),
        ({"erase": {"mode": "shred"}}, [], "erase.mode = 'shred': 'drop', 'replace' or 'sample' is needed"),
        ({"erase": {"texts": {"a": 1}}}, [], "erase.texts needs erase.mode = sample; with replace it would do nothing"),
        ({"erase": {"mode": "drop", "text": "x"}}, [], "erase.text needs erase.mode = replace; with drop"),
        ({"erase": {"mode": "sample"}}, [], "erase.mode = sample needs erase.texts"),
        ({}, ["sources.b.erase.mode=sample"], "sources.b.erase.mode = sample needs sources.b.erase.texts"),
        ({"rows": 10, "tokens": 10}, [], "rows = 10 and tokens = 10: one of them decides the size"),
        ({"short": "repeat"}, [], "short = repeat needs rows or tokens"),
        ({"similarity": 0.7}, [], "similarity = 0.7 needs dedup = near"),
        ({"overlap": 8}, [], "overlap = 8 needs decontaminate"),
        ({"validation": 1.0}, [], "validation = 1.0"),
        ({"decontaminate": [{"from": "x", "splt": "dev"}]}, [], "'decontaminate.0.splt'; did you mean 'split'?"),
        ({"decontaminate": [{"split": "dev"}]}, [], "decontaminate.0.from is not set"),
        ({"decontaminate": [3]}, [], "decontaminate = 3: a section {…} is needed"),
        (
            {"decontaminate": "x.jsonl"},
            [],
            "a list is needed (hint: a list stands in brackets: decontaminate=[x.jsonl]",
        ),
    ],
)
def test_refused_in_one_line(tmp_path: Path, values: dict[str, Any], overrides: list[str], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        config(tmp_path, TWO, *overrides, **values)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("sources", "message"),
    [
        ([], "sources = []: at least one entry is needed"),
        ([{"from": "a.jsonl"}], "sources.0.name is not set"),
        ([{"name": "a"}], "sources.0.from is not set"),
        ([{"name": "a", "path": "a.jsonl"}], "unknown setting 'sources.0.path'"),
        ([{"name": "a", "from": "a"}, {"name": "a", "from": "b"}], "the name 'a' is given twice"),
    ],
)
def test_sources_are_whole_and_have_names_of_their_own(tmp_path: Path, sources: Any, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        config(tmp_path, sources)
    assert message in str(caught.value)


def test_overrides_reach_a_source_by_its_name(tmp_path: Path) -> None:
    found = config(tmp_path, TWO, "sources.b.weight=2.5", "sources.b.erase.mode=drop", "rows=7")
    assert [source.weight for source in found.sources] == [1, 2.5]
    assert found.sources[1].erase is not None and found.sources[1].erase.mode == "drop"
    assert (found.rows, found.sources[0].path) == (7, "a.jsonl")


def test_an_evaluation_is_a_text_or_a_section(tmp_path: Path) -> None:
    found = config(tmp_path, TWO, "decontaminate=[x.jsonl, {from: openai/gsm8k, config: main, split: test}]")
    assert [each.name for each in found.decontaminate] == ["x.jsonl", "openai/gsm8k (main, test)"]
    assert MixConfig.model_validate(found.resolved()).decontaminate == found.decontaminate


def test_a_source_has_the_erasure_of_the_mix_unless_it_has_its_own(tmp_path: Path) -> None:
    sources = [
        *TWO,
        {"name": "c", "from": "c.jsonl", "erase": None},
        {"name": "d", "from": "d", "erase": {"share": 0.5}},
    ]
    found = config(tmp_path, sources, erase={"mode": "drop"})
    modes = [(erase.mode, erase.share) if (erase := found.erase_of(each)) else None for each in found.sources]
    assert modes == [("drop", 1.0), ("drop", 1.0), None, ("replace", 0.5)]
