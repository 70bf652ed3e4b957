"""The tiny bundle, built once for all the tests that only look at it."""

import pytest
from tiny_build import Build, build


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Build:
    """The tiny bundle; tests that change it work on a copy."""
    return build(tmp_path_factory.mktemp("tiny"))
