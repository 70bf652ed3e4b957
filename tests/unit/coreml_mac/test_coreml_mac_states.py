"""Caches that are read back are held to what must be true of them on any executor."""

import re
from collections.abc import Callable

import numpy as np
import pytest

from reference.errors import UserError
from validation.runtimes.chunked_decoder import ChunkedDecoder
from validation.runtimes.core_ml_executor import Packages
from validation.runtimes.coreml_unit_states import cache_problems, read_caches
from validation.runtimes.language_layout import LanguageLayout
from validation.runtimes.ml_program.executable import load
from validation.runtimes.ml_program.state import State
from validation.runtimes.ml_program_runtime import ExecutedChunk

pytestmark = pytest.mark.xdist_group("coreml-mac")  # one worker exports the packages once

KEYS = "decoder.mlpackage/key_cache"
NUM_ROWS = 12
"""A chunk of 8 and a padded one of 3, then a step."""

Caches = dict[str, np.ndarray]


@pytest.fixture(scope="module")
def decoder(packages: Packages) -> ChunkedDecoder[State]:
    assert packages.whole is not None
    from validation.runtimes.language_layout import read_layout

    layout = read_layout(packages.whole.language)
    programs = [
        ExecutedChunk(load(packages.whole.language / chunk.package, function="prefill"), "fp16")
        for chunk in layout.chunks
    ]
    return ChunkedDecoder(layout, programs)


def rows(count: int = NUM_ROWS) -> np.ndarray:
    return np.random.default_rng(3).standard_normal((count, 64), dtype=np.float32)


@pytest.fixture(scope="module")
def caches(decoder: ChunkedDecoder[State]) -> Caches:
    return read_caches(decoder, rows(), State.read)


@pytest.fixture(scope="module")
def layout(decoder: ChunkedDecoder[State]) -> LanguageLayout:
    return decoder.layout


def test_every_cache_is_read_after_the_prompt_and_after_the_step(caches: Caches) -> None:
    assert sorted(caches) == [
        f"{when}/decoder.mlpackage/{name}"
        for when in ("prompt", "step")
        for name in ("key_cache", "value_cache")
    ]


@pytest.mark.parametrize("count", [2, 3, 8, 9, 10, 12, 17, 40])
def test_what_the_packages_leave_in_their_caches_is_right(
    decoder: ChunkedDecoder[State], layout: LanguageLayout, count: int
) -> None:
    found = read_caches(decoder, rows(count), State.read)
    assert cache_problems(layout, count, found) == ()


def _nan(found: Caches) -> None:
    found[f"prompt/{KEYS}"][0, 0, 10, 0] = np.nan


def _infinite(found: Caches) -> None:
    found[f"step/{KEYS}"][0, 0, 11, 0] = np.inf


def _row_left_out(found: Caches) -> None:
    found[f"step/{KEYS}"][1, :, 11] = 0


def _stray(found: Caches) -> None:
    found[f"prompt/{KEYS}"][0, 0, 16, 0] = 1


def _not_a_number_behind(found: Caches) -> None:
    found[f"prompt/{KEYS}"][0, 0, 40, 0] = np.nan


def _overwritten(found: Caches) -> None:
    found[f"step/{KEYS}"][0, 0, 4, 0] += 0.5


def _transposed(found: Caches) -> None:
    found[f"prompt/{KEYS}"] = found[f"prompt/{KEYS}"].transpose(0, 2, 1, 3)


def _integers(found: Caches) -> None:
    found[f"prompt/{KEYS}"] = found[f"prompt/{KEYS}"].astype(np.int32)


def _missing(found: Caches) -> None:
    del found[f"step/{KEYS}"]


@pytest.mark.parametrize(
    ("damage", "told"),
    [
        (_nan, "prompt/.*: 1 values of 11 rows are not finite"),
        (_infinite, "step/.*: 1 values of 12 rows are not finite"),
        (_row_left_out, "step/.*: 1 of 24 rows of keys or values are all zero"),
        (_stray, "prompt/.*: 1 values behind position 16, where nothing was written"),
        (_not_a_number_behind, "prompt/.*: 1 values behind position 16"),
        (_overwritten, "step/.*: changed 1 values in front of the step"),
        (_transposed, r"declared as \[2, 2, 256, 16\], read back as \[2, 256, 2, 16\]"),
        (_integers, "declared as float16, read back as int32"),
        (_missing, "step/.*: not read back"),
    ],
)
def test_every_damage_is_found(
    layout: LanguageLayout, caches: Caches, damage: Callable[[Caches], None], told: str
) -> None:
    found = {name: array.copy() for name, array in caches.items()}
    damage(found)
    problems = cache_problems(layout, NUM_ROWS, found)
    assert len(problems) == 1, problems
    assert re.search(told, problems[0]), problems


def test_one_row_is_too_few_to_read_caches_after(decoder: ChunkedDecoder[State]) -> None:
    with pytest.raises(UserError, match="not after 1 rows"):
        read_caches(decoder, rows(1), State.read)
