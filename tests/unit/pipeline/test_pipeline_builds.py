"""Several recipes: one that fails leaves the others alone, and the gravest end is the exit code."""

import pytest

from fastvlm_compile.builds import Ending, refuse_failed
from fastvlm_compile.cli import run
from fastvlm_compile.errors import GateError, RecipesError, StageError, StoreError


def _ending(name: str, kind: type[Exception] | None = None) -> Ending:
    return Ending(recipe=name, error=None if kind is None else kind("it failed"))


@pytest.mark.parametrize(
    ("kinds", "code"),
    [
        ([GateError, None], 1),
        ([GateError, StoreError], 2),
        ([GateError, StoreError, StageError], 3),
    ],
)
def test_the_gravest_ending_is_the_exit_code(kinds: list[type[Exception]], code: int) -> None:
    endings = [_ending(f"recipe{i}", kind) for i, kind in enumerate(kinds)]
    with pytest.raises(RecipesError) as caught:
        refuse_failed(endings)
    assert caught.value.exit_code == code
    assert RecipesError.exit_code == 2  # of the class, untouched


def test_recipes_that_all_end_well_are_no_error() -> None:
    refuse_failed([_ending("a"), _ending("b")])


def test_those_that_failed_are_named() -> None:
    with pytest.raises(RecipesError, match=r"^2 of 3 recipes failed: a, c$"):
        refuse_failed([_ending("a", GateError), _ending("b"), _ending("c", GateError)])


@pytest.mark.parametrize("option", ["--out", "--checkpoint", "--base"])
def test_what_is_for_one_recipe_is_refused_for_two(
    option: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["build", "a.yaml", "b.yaml", option, "x"]) == 2
    assert "are for a build of one recipe" in capsys.readouterr().err
