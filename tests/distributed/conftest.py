"""Two workers for all tests that harm none of them for good."""

from collections.abc import Iterator

import pytest
from dask_processes import Scheduler, scheduler


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scheduler]:
    """A scheduler with two worker processes."""
    with (
        scheduler(tmp_path_factory.mktemp("cluster")) as running,
        running.worker(),
        running.worker(),
    ):
        yield running
