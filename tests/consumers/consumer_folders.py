"""Where the two bundles and the environments are."""

import os
import shutil
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[2]
BUNDLES = ("tiny", "real-tower")


def folder_of(config: pytest.Config, option: str, default: str) -> Path:
    """Of an option; it is unknown when all tests are collected and these are deselected."""
    return REPOSITORY / config.getoption(option, default=default)


def linked(source: Path, target: Path) -> Path:
    """A copy that takes no space: hard links where the file system has them."""

    def link(one: str, other: str) -> None:
        try:
            os.link(one, other)
        except OSError:
            shutil.copy2(one, other)

    return Path(shutil.copytree(source, target, copy_function=link))
