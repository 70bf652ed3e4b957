"""A bundle that stands as it should is left alone; anything else has it made again."""

from pathlib import Path

import pytest

from fastvlm_compile.errors import OutputError
from fastvlm_compile.publish import Publication, publish
from fastvlm_compile.store import Store


class Maker:
    """Makes a bundle of one file and counts how often."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.times = 0

    def __call__(self) -> None:
        self.times += 1
        self.folder.mkdir(parents=True, exist_ok=True)
        (self.folder / "text").write_text("bundle")


@pytest.fixture
def store(tmp_path: Path) -> Store:
    store = Store(root=tmp_path / "store")
    store.open()
    return store


def _publish(maker: Maker, store: Store, *, key: str = "1") -> str:
    return publish(Publication(recipe="toy", folder=maker.folder, key=key), maker, store)


def test_a_second_publication_of_the_same_says_so_and_writes_nothing(
    tmp_path: Path, store: Store
) -> None:
    maker = Maker(tmp_path / "dist" / "toy")
    assert _publish(maker, store) == "published"
    before = (maker.folder / "text").stat()
    assert _publish(maker, store) == "up to date"
    assert maker.times == 1
    assert (maker.folder / "text").stat() == before


def test_a_changed_bundle_is_made_again(tmp_path: Path, store: Store) -> None:
    maker = Maker(tmp_path / "dist" / "toy")
    _publish(maker, store)
    (maker.folder / "text").write_text("Bundle")
    assert _publish(maker, store) == "published"
    (maker.folder / "text").unlink()
    assert _publish(maker, store) == "published"
    (maker.folder / ".hidden").write_text("added")
    assert _publish(maker, store) == "published"
    assert maker.times == 4


def test_another_key_or_another_place_is_made(tmp_path: Path, store: Store) -> None:
    _publish(Maker(tmp_path / "dist" / "toy"), store)
    assert _publish(Maker(tmp_path / "dist" / "toy"), store, key="2") == "published"
    assert _publish(Maker(tmp_path / "dist" / "other"), store, key="2") == "published"


def test_a_bundle_that_could_not_be_made_is_not_remembered(tmp_path: Path, store: Store) -> None:
    def refuse() -> None:
        raise OutputError("no")

    publication = Publication(recipe="toy", folder=tmp_path / "toy", key="1")
    for _ in range(2):
        with pytest.raises(OutputError):
            publish(publication, refuse, store)
