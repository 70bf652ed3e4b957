"""Every block that says how to use a bundle does what it says, as it stands.

README's blocks run beside `dist/tiny` and `dist/real-tower`, those of a card in its bundle.
"""

import sys
from pathlib import Path

import pytest
from consumer_folders import BUNDLES, REPOSITORY, folder_of, linked
from usage_blocks import Block, blocks_of, run_block

from validation.consumers.golden_cases import write_cases
from validation.consumers.outcome import Environment
from validation.consumers.registry import CONSUMERS

pytestmark = pytest.mark.consumers

README = "README.md"
OWN_BIN = Path(sys.executable).parent


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """README's blocks, and those of the cards of what is built."""
    if "block" in metafunc.fixturenames:
        folder = folder_of(metafunc.config, "--bundles", "dist")
        pages = {README: REPOSITORY / README}
        pages |= {name: folder / name / README for name in BUNDLES}
        blocks = [
            block
            for name, path in pages.items()
            if path.is_file()
            for block in blocks_of(name, path.read_text(encoding="utf-8"))
        ]
        metafunc.parametrize("block", blocks, ids=str)


def test_every_consumer_has_its_block_in_the_readme() -> None:
    blocks = blocks_of(README, (REPOSITORY / README).read_text(encoding="utf-8"))
    assert {block.consumer for block in blocks} == {each.name for each in CONSUMERS}


def test_a_block_runs_as_it_stands(
    block: Block, environment: Environment, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    if block.page == README:
        folder = tmp_path
        bundles: Path = request.getfixturevalue("bundles")
        tiny, _ = (linked(bundles / name, folder / "dist" / name) for name in BUNDLES)
        asked = tiny
    else:
        place = folder_of(request.config, "--bundles", "dist") / block.page
        asked = folder = linked(place, tmp_path / block.page)
    cases = tmp_path / "cases"
    cases.mkdir()
    scene = write_cases(asked, cases, num_scenes=1).cases[0]
    assert scene.image is not None
    scene.image.rename(folder / "photo.png")
    assert run_block(block, folder, environment, OWN_BIN)
