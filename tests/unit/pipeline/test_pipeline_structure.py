"""Plain values become dataclasses and go back, unchanged or not at all."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import pytest

from fastvlm_compile.errors import RecipeError
from fastvlm_compile.structure import from_plain, nearest, to_plain


@dataclass(frozen=True, kw_only=True)
class Inner:
    flag: bool
    ratio: float


@dataclass(frozen=True, kw_only=True)
class Outer:
    name: str
    choice: Literal["a", "b"]
    inner: Inner
    many: tuple[Inner, ...] = ()
    maybe: int | None = None
    table: Mapping[str, str] | None = None


VALUE = Outer(
    name="x",
    choice="b",
    inner=Inner(flag=True, ratio=0.5),
    many=(Inner(flag=False, ratio=1e-9),),
    maybe=3,
    table={"k": "v"},
)


def test_a_value_survives_the_way_there_and_back() -> None:
    assert from_plain(to_plain(VALUE), Outer) == VALUE


def test_defaults_are_taken_where_nothing_is_said() -> None:
    plain = {"name": "x", "choice": "a", "inner": {"flag": False, "ratio": 1}}
    read = from_plain(plain, Outer)
    assert (read.many, read.maybe, read.inner.ratio) == ((), None, 1.0)


@pytest.mark.parametrize(
    "plain",
    [
        {"flag": 1, "ratio": 0.5},  # a number is no boolean
        {"flag": True, "ratio": True},  # and a boolean no number
        {"flag": True, "ratio": "0.5"},
        {"flag": True},
        {"flag": True, "ratio": 0.5, "more": 1},
        [True, 0.5],
    ],
)
def test_what_is_not_quite_the_type_is_refused(plain: object) -> None:
    with pytest.raises(RecipeError):
        from_plain(plain, Inner)


def test_a_value_without_a_plain_spelling_is_a_mistake_of_ours() -> None:
    with pytest.raises(TypeError, match="is no plain value"):
        to_plain({"a": {1, 2}})


def test_a_guess_is_made_for_a_near_name_only() -> None:
    assert nearest("colour", ["color", "size"]) == "did you mean `color`? known: color, size"
    assert nearest("zzz", ["color", "size"]) == "known: color, size"
