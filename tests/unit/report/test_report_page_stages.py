"""What stages cost is told of the bundle that the latest build made, and of no other."""

from pathlib import Path

import pytest
from report_bundle import make_bundle

from fastvlm_compile.key import Ingredients
from fastvlm_compile.latest import BuildRecord, Published, save_record
from fastvlm_compile.report.page_stages import stages_of
from fastvlm_compile.store import Store


def _ingredients(stage: str) -> Ingredients:
    return Ingredients(stage=stage, function=f"m:{stage}", config={}, inputs={}, code={}, tools={})


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    return make_bundle(tmp_path / "bundle")


@pytest.fixture
def store(tmp_path: Path, bundle: Path) -> Store:
    """Of a build with three stages that published the bundle; the last one's result is gone."""
    store = Store(root=tmp_path / "store")
    store.open()
    for stage, seconds in (("quick", 0.5), ("slow", 60.0)):
        ingredients = _ingredients(stage)
        staging = store.stage_folder(ingredients.key)
        (staging / "output" / "result").write_bytes(b"12345")
        store.commit(staging, ingredients, duration_s=seconds, peak_memory_bytes=1000)
    published = Published(key="k", digest=store.outside_tree(bundle, hidden=True).digest)
    stages = {name: _ingredients(name) for name in ("quick", "slow", "gone")}
    save_record(
        store,
        "sample",
        BuildRecord(stages=stages, published=published, restored={"slow": True, "quick": False}),
    )
    return store


def test_the_longest_stage_comes_first_and_one_that_is_gone_last(
    bundle: Path, store: Store
) -> None:
    found = stages_of(bundle, "sample", store)
    assert not found.reason
    assert [(line.stage, line.duration_s) for line in found.lines] == [
        ("slow", 60.0),
        ("quick", 0.5),
        ("gone", None),
    ]
    assert [line.from_store for line in found.lines] == [True, False, None]
    assert (found.lines[0].size_bytes, found.lines[0].peak_memory_bytes) == (5, 1000)


def test_a_bundle_that_the_build_did_not_make_has_no_stages(bundle: Path, store: Store) -> None:
    (bundle / "more").write_bytes(b"more")
    assert "made another bundle" in stages_of(bundle, "sample", store).reason


@pytest.mark.parametrize("name", ["unknown", "../latest/sample", "/etc/passwd", ""])
def test_a_name_that_the_store_does_not_know_leads_nowhere(
    name: str, bundle: Path, store: Store
) -> None:
    assert "knows no build of it" in stages_of(bundle, name, store).reason
