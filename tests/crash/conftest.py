"""Builds that are killed and go on."""

from collections.abc import Callable
from pathlib import Path

import pytest
from resume_build import Builds, stage_of


@pytest.fixture
def builds(tmp_path: Path) -> Callable[..., Builds]:
    def make(function: str, config: object, **sources: Path) -> Builds:
        return Builds(tmp_path, stage_of(function, config, sources))

    return make
