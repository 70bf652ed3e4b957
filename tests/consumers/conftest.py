"""The two bundles and the environments, as `make test-consumers` leaves them."""

from pathlib import Path

import pytest
from consumer_folders import folder_of

from validation.consumers.outcome import Environment


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--bundles", default="dist", help="folder with tiny, real-tower, 0.5b-onnx")
    parser.addoption("--environments", default=".consumers", help="where consumers are installed")


@pytest.fixture(scope="session")
def environment(pytestconfig: pytest.Config) -> Environment:
    return Environment(root=folder_of(pytestconfig, "--environments", ".consumers"))


@pytest.fixture(scope="session")
def tiny_bundle(pytestconfig: pytest.Config) -> Path:
    """Do not write into it."""
    return _built(pytestconfig, "tiny")


@pytest.fixture(scope="session")
def real_tower_bundle(pytestconfig: pytest.Config) -> Path:
    """The real tower at 1024, a language model of two layers. Do not write into it."""
    return _built(pytestconfig, "real-tower")


@pytest.fixture(scope="session")
def half_billion_bundle(pytestconfig: pytest.Config) -> Path:
    """The 0.5B's ONNX graphs, random weights. Do not write into it."""
    return _built(pytestconfig, "0.5b-onnx")


@pytest.fixture(scope="session")
def bundles(tiny_bundle: Path, real_tower_bundle: Path) -> Path:
    """The folder that holds both."""
    assert tiny_bundle.parent == real_tower_bundle.parent
    return tiny_bundle.parent


def _built(config: pytest.Config, name: str) -> Path:
    bundle = folder_of(config, "--bundles", "dist") / name
    if not (bundle / "manifest.json").is_file():
        pytest.fail(f"{bundle}: not built; `make test-consumers` builds it")
    return bundle
