"""An entry of the store is whole and verified, or it is a miss; it is never half there."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from fastvlm_compile.durable import Disk
from fastvlm_compile.errors import StoreError
from fastvlm_compile.key import Ingredients
from fastvlm_compile.store import Store
from fastvlm_compile.store_entry import Damage, Entry

INGREDIENTS = Ingredients(
    stage="toy", function="m:f", config={}, inputs={}, code={"m": "1"}, tools={}
)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    store = Store(root=tmp_path / "store")
    store.open()
    return store


def _build(store: Store) -> Entry:
    staging = store.stage_folder(INGREDIENTS.key)
    (staging / "output" / "text").write_text("hello")
    (staging / "output" / "sub").mkdir()
    (staging / "output" / "sub" / ".hidden").write_text("there")
    return store.commit(staging, INGREDIENTS, duration_s=1.5, peak_memory_bytes=7)


def test_what_was_committed_is_found_with_its_cost(store: Store) -> None:
    committed = _build(store)
    found = store.look(INGREDIENTS.key)
    assert isinstance(found, Entry)
    assert found.digest == committed.digest
    assert (found.output / "text").read_text() == "hello"
    assert (found.manifest.duration_s, found.manifest.peak_memory_bytes) == (1.5, 7)
    assert found.size_bytes == 10
    assert not any((store.root / "staging").iterdir())


def test_the_cost_is_no_part_of_the_digest(store: Store) -> None:
    first = _build(store)
    staging = store.stage_folder(INGREDIENTS.key)
    (staging / "output" / "text").write_text("hello")
    (staging / "output" / "sub").mkdir()
    (staging / "output" / "sub" / ".hidden").write_text("there")
    again = store.commit(staging, INGREDIENTS, duration_s=99.0, peak_memory_bytes=99)
    assert again.digest == first.digest


def _flip(folder: Path) -> None:
    path = folder / "output" / "text"
    data = bytearray(path.read_bytes())
    data[2] ^= 1
    path.write_bytes(data)


def _edit_manifest(change: Callable[[dict[str, object]], None]) -> Callable[[Path], None]:
    def damage(folder: Path) -> None:
        path = folder / "manifest.json"
        document = json.loads(path.read_bytes())
        change(document)
        path.write_text(json.dumps(document))

    return damage


DAMAGES: dict[str, tuple[Callable[[Path], object], str]] = {
    "a flipped bit": (_flip, "text was changed"),
    "a cut file": (lambda f: (f / "output" / "text").write_text("hel"), "text was changed"),
    "a longer file": (lambda f: (f / "output" / "text").write_text("hello!"), "text was changed"),
    "an emptied file": (lambda f: (f / "output" / "text").write_text(""), "text was changed"),
    "a missing file": (
        lambda f: (f / "output" / "sub" / ".hidden").unlink(),
        "sub/.hidden is missing",
    ),
    "an added file": (lambda f: (f / "output" / "new").write_text(""), "new was added"),
    "an added hidden file": (lambda f: (f / "output" / ".new").write_text(""), ".new was added"),
    "a file beside the output": (lambda f: (f / "more").write_text(""), "more was added"),
    "a folder for a file": (
        lambda f: ((f / "output" / "text").unlink(), (f / "output" / "text").mkdir()),
        "text is missing",
    ),
    "a missing manifest": (
        lambda f: (f / "manifest.json").unlink(),
        "manifest.json is missing",
    ),
    "a cut manifest": (
        lambda f: (f / "manifest.json").write_text((f / "manifest.json").read_text()[:50]),
        "manifest.json is damaged",
    ),
    "a manifest of another shape": (
        lambda f: (f / "manifest.json").write_text("[]"),
        "manifest.json is damaged",
    ),
    "a manifest with another cost": (
        _edit_manifest(lambda d: d["body"].update(duration_s=0.0)),  # type: ignore[attr-defined]
        "manifest.json is damaged: its body is not what was sealed",
    ),
    "a manifest with another file": (
        _edit_manifest(lambda d: d["body"]["files"].pop()),  # type: ignore[index]
        "manifest.json is damaged: its body is not what was sealed",
    ),
}


@pytest.mark.parametrize("name", DAMAGES)
def test_every_damage_is_a_miss_that_is_told_and_mended(store: Store, name: str) -> None:
    committed = _build(store)
    damage, problem = DAMAGES[name]
    damage(store.root / "entries" / INGREDIENTS.key)
    found = store.look(INGREDIENTS.key)
    assert isinstance(found, Damage)
    assert found.problem.startswith(problem)
    _build(store)
    mended = store.look(INGREDIENTS.key)
    assert isinstance(mended, Entry)
    assert mended.digest == committed.digest


def test_an_entry_under_another_name_is_damage(store: Store) -> None:
    _build(store)
    other = "0" * 64
    (store.root / "entries" / INGREDIENTS.key).rename(store.root / "entries" / other)
    assert store.look(other) == Damage(key=other, problem="manifest.json is of another key")
    assert store.look(INGREDIENTS.key) is None


def test_looking_and_remembering_do_not_hide_a_later_change(store: Store) -> None:
    _build(store)
    found = store.look(INGREDIENTS.key)
    assert isinstance(found, Entry)
    store.remember(found)
    _flip(store.root / "entries" / INGREDIENTS.key)
    assert isinstance(store.look(INGREDIENTS.key), Damage)


def test_a_stage_that_writes_nothing_or_a_link_is_our_mistake(store: Store) -> None:
    staging = store.stage_folder(INGREDIENTS.key)
    with pytest.raises(ValueError, match="toy wrote no file"):
        store.commit(staging, INGREDIENTS, duration_s=0, peak_memory_bytes=0)
    (staging / "output" / "text").write_text("x")
    (staging / "output" / "link").symlink_to("text")
    with pytest.raises(ValueError, match="or a symlink"):
        store.commit(staging, INGREDIENTS, duration_s=0, peak_memory_bytes=0)
    assert store.look(INGREDIENTS.key) is None


def test_a_dead_builders_leftovers_are_swept(store: Store) -> None:
    staging = store.stage_folder(INGREDIENTS.key)
    (staging / "output" / "half").write_text("half")
    (store.root / "entries" / ".gone-1").mkdir()
    store.sweep()
    assert not any((store.root / "staging").iterdir())
    assert not any((store.root / "entries").iterdir())


def test_a_living_builders_staging_folder_is_left_alone(store: Store) -> None:
    with store.building(INGREDIENTS.key, note="toy", on_wait=lambda holder: None):
        staging = store.stage_folder(INGREDIENTS.key)
        store.sweep()
        assert staging.is_dir()


def test_a_folder_with_something_else_in_it_is_no_store(tmp_path: Path) -> None:
    (tmp_path / "letter.txt").write_text("dear")
    with pytest.raises(StoreError, match="this folder is not empty and is no store"):
        Store(root=tmp_path).open()
    assert [path.name for path in tmp_path.iterdir()] == ["letter.txt"]


def test_a_store_of_another_format_is_refused(store: Store) -> None:
    (store.root / "store.json").write_text('{"schema": 99}')
    with pytest.raises(StoreError, match="another format"):
        store.open()


def test_a_file_in_the_place_of_the_store_is_told(tmp_path: Path) -> None:
    (tmp_path / "store").write_text("")
    with pytest.raises(StoreError, match="something is in the way"):
        Store(root=tmp_path / "store").open()


def test_a_failing_disk_leaves_no_half_written_file(tmp_path: Path) -> None:
    def refuse(what: str) -> None:
        raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space"):
        Disk(step=refuse).write(tmp_path / "file", b"data")
    assert not any(tmp_path.iterdir())
