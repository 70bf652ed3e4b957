"""A build that cannot fit is refused: by how much, and what to leave out of it."""

import dataclasses
from pathlib import Path

import pytest

from fastvlm_compile.errors import TooLargeError
from fastvlm_compile.estimate.before_build import refuse_too_large
from fastvlm_compile.estimate.estimate import Estimate
from fastvlm_compile.estimate.forecast import Forecast, forecast, of_fewer
from fastvlm_compile.estimate.refusal import Refusal, refusal
from fastvlm_compile.estimate.room import Room, room_here
from fastvlm_compile.estimate.shared import origins
from fastvlm_compile.recipe_file import load_recipe
from fastvlm_compile.store import Store

RECIPES = Path(__file__).parents[3] / "recipes"
_GB = 10**9
_SMALL = Estimate(memory_bytes=_GB, disk_bytes=_GB // 10, time_s=1.0)


@pytest.fixture(scope="module")
def whole() -> Forecast:
    """The tiny recipe, each stage of which takes 1 GB of memory and 0.1 GB of disk."""
    recipe = load_recipe(RECIPES / "tiny.yaml")
    real = forecast(recipe, weights=recipe.checkpoint.path, base=None)
    equal = dataclasses.replace(real, stages=dict.fromkeys(real.stages, _SMALL))
    return of_fewer(equal, recipe)


def _with(whole: Forecast, **memory_gb: float) -> Forecast:
    """Other memory for stages, their dots spelled as two underscores."""
    changed = {
        name.replace("__", "."): dataclasses.replace(_SMALL, memory_bytes=round(size * _GB))
        for name, size in memory_gb.items()
    }
    assert changed.keys() <= whole.stages.keys()
    return dataclasses.replace(whole, stages={**whole.stages, **changed})


def _named(whole: Forecast, name: str, *, size: int) -> Forecast:
    """The same recipe by another name, and with another image size."""
    image = dataclasses.replace(whole.recipe.image, size=size)
    return of_fewer(whole, dataclasses.replace(whole.recipe, name=name, image=image))


def _refused(whole: Forecast, *, memory_gb: float = 8, disk_gb: float = 100) -> Refusal:
    room = Room(memory_bytes=round(memory_gb * _GB), disk_bytes=round(disk_gb * _GB))
    found = refusal(whole, whole.stages, room)
    assert found is not None
    return found


def test_what_fits_is_not_refused(whole: Forecast) -> None:
    room = Room(memory_bytes=_GB, disk_bytes=100 * _GB)
    assert refusal(whole, whole.stages, room) is None


def test_too_little_memory_is_told_with_the_variants_that_need_it(whole: Forecast) -> None:
    found = _refused(_with(whole, coreml__decoder__float32=9.5, parity__mlx__int8=12.25))
    assert found.message == (
        "a build of tiny does not fit here: the stage parity.mlx.int8 takes about 12.2 GB of "
        "memory, 4.2 GB more than the 8.0 GB that are available"
    )
    assert found.hint == (
        "leave out of the recipe's targets: coreml.float32, mlx.int8; "
        "--even-if-too-large builds it nevertheless"
    )


def test_what_is_compressed_goes_with_what_it_is_made_of(whole: Forecast) -> None:
    hint = _refused(_with(whole, coreml__decoder__float16=9)).hint
    for variant in ("float16", "int8", "int4", "int4-fast", "lut4", "lut6", "mixed"):
        assert f"coreml.{variant}" in hint
    assert "coreml.float32" not in hint
    assert "onnx" not in hint


def test_a_stage_that_all_variants_need_is_named(whole: Forecast) -> None:
    assert _refused(_with(whole, golden=9)).hint == (
        "no variant of the recipe would fit: all need the stage golden; "
        "--even-if-too-large builds it nevertheless"
    )


def test_too_little_disk_is_told_with_what_frees_enough(whole: Forecast) -> None:
    size_gb = len(whole.stages) / 10 + whole.bundle_bytes / _GB
    found = _refused(whole, disk_gb=size_gb - 0.06)
    assert found.message.startswith(
        "a build of tiny does not fit here: its stages and the bundle take"
    )
    assert found.message.endswith(f"60.0 MB more than the {size_gb - 0.06:.1f} GB that are free")
    left_out = found.hint.partition(": ")[2].partition(";")[0]
    assert len(left_out.split(", ")) == 1, "one variant's stages are more than enough"


def test_both_are_told_at_once(whole: Forecast) -> None:
    problems = _refused(_with(whole, golden=9), disk_gb=1).problems
    assert ["memory" in problems[0], "disk" in problems[1]] == [True, True]


def test_stages_that_are_there_are_not_refused(whole: Forecast) -> None:
    large = _with(whole, golden=9)
    room = Room(memory_bytes=8 * _GB, disk_bytes=100 * _GB)
    assert refusal(large, large.stages.keys() - {"golden"}, room) is None


def test_a_build_from_nothing_is_refused_and_makes_no_store(
    whole: Forecast, tmp_path: Path
) -> None:
    store = Store(root=tmp_path / "store")
    room = Room(memory_bytes=_GB // 2, disk_bytes=100 * _GB)
    with pytest.raises(TooLargeError, match=r"500\.0 MB more") as caught:
        refuse_too_large([whole], store, room)
    assert caught.value.exit_code == 2
    assert not (tmp_path / "store").exists()


def test_builds_of_one_call_share_the_disk(whole: Forecast, tmp_path: Path) -> None:
    other = _named(whole, "other", size=2 * whole.recipe.image.size)
    sizes_gb = [each.total(each.stages).written_bytes / _GB for each in (whole, other)]
    shared_gb = 0.1 * sum(
        origins(whole.plan)[name] == origins(other.plan).get(name) for name in whole.stages
    )
    assert 0 < shared_gb < min(sizes_gb), "the quantized weights, but no golden"
    store = Store(root=tmp_path / "store")
    needed_gb = sum(sizes_gb) - shared_gb
    enough = Room(memory_bytes=_GB, disk_bytes=round((needed_gb + 0.01) * _GB))
    refuse_too_large([whole, other], store, enough)
    less = dataclasses.replace(enough, disk_bytes=round((needed_gb - 0.05) * _GB))
    refuse_too_large([other], store, less)
    with pytest.raises(TooLargeError, match=r"^a build of other .* 50\.0 MB more than .* tiny$"):
        refuse_too_large([whole, other], store, less)


def test_there_is_room_where_tests_run(tmp_path: Path) -> None:
    room = room_here(tmp_path / "not" / "there")
    assert 100e6 < room.memory_bytes < 1e15
    assert room.disk_bytes > 0
