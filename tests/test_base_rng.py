from __future__ import annotations

import numpy as np
from scipy import stats

from ramify.base.rng import generator, key, uniforms


def draws(n: int, *parts: str | int) -> np.ndarray:
    return uniforms(np.full(n, key(*parts), dtype=np.uint64), np.arange(n, dtype=np.uint64))


def test_splitmix64_gives_its_published_sequence() -> None:
    """Seed 1234567 of the reference implementation (Vigna, https://prng.di.unimi.it/splitmix64.c)."""
    reference = [
        6457827717110365317,
        3203168211198807973,
        9817491932198370423,
        4593380528125082431,
        16408922859458223821,
    ]
    found = uniforms(np.full(5, 1234567, dtype=np.uint64), np.arange(5, dtype=np.uint64))
    assert found.tolist() == [(z >> 11) / 2**53 for z in reference]


def test_keys_are_stable_across_machines_and_versions() -> None:
    assert key("sample", 42, "valid:17", 3) == 477174613374646784


def test_keys_tell_what_a_draw_is_for_apart() -> None:
    names = [(1, 23), (12, 3), ("1", 23), ("123",), (123,), ("a", "b"), ("ab",), ("b", "a"), ()]
    assert len({key(*parts) for parts in names}) == len(names)


def test_draws_do_not_depend_on_their_neighbours_or_order() -> None:
    keys = np.array([key("sample", i) for i in range(100)], dtype=np.uint64)
    counter = np.arange(100, dtype=np.uint64) % np.uint64(7)
    together = uniforms(keys, counter)
    shuffled = np.random.default_rng(0).permutation(100)
    assert np.array_equal(uniforms(keys[shuffled], counter[shuffled]), together[shuffled])
    alone = [uniforms(keys[i : i + 1], counter[i : i + 1])[0] for i in range(100)]
    assert np.array_equal(np.array(alone), together)


def test_draws_are_uniform() -> None:
    for values in (draws(100_000, "test", 0), keyed(100_000)):
        assert values.min() >= 0.0
        assert values.max() < 1.0
        assert stats.chisquare(np.histogram(values, 256, (0, 1))[0]).pvalue > 1e-3
        assert stats.kstest(values, "uniform").pvalue > 1e-3


def keyed(n: int) -> np.ndarray:
    """The first draw of many keys, as a batch of samples draws."""
    keys = np.array([key("sample", 1, i) for i in range(n)], dtype=np.uint64)
    return uniforms(keys, np.zeros(n, dtype=np.uint64))


def test_consecutive_draws_and_neighbouring_keys_are_independent() -> None:
    values = draws(100_000, "pairs")
    assert abs(np.corrcoef(values[:-1], values[1:])[0, 1]) < 0.015
    table = np.histogram2d(values[::2], values[1::2], 16, [[0, 1], [0, 1]])[0]
    assert stats.chisquare(table.ravel()).pvalue > 1e-3
    neighbours = keyed(100_000)
    assert abs(np.corrcoef(neighbours[:-1], neighbours[1:])[0, 1]) < 0.015


def test_generators_repeat_and_differ_by_purpose() -> None:
    assert generator("rows", 1).random() == generator("rows", 1).random()
    assert generator("rows", 1).random() != generator("rows", 2).random()
    assert generator("rows", 1).random() != generator("problems", 1).random()
