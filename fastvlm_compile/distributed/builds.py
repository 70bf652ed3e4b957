"""Several recipes on one cluster, at once; what one makes the others find."""

import dataclasses
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial

from fastvlm_compile.builds import Ending, ended
from fastvlm_compile.console import Reporter
from fastvlm_compile.distributed.cluster import Cluster, connected
from fastvlm_compile.distributed.coordinate import run_on
from fastvlm_compile.distributed.location import StoreLocation
from fastvlm_compile.pipeline import BuildRequest
from fastvlm_compile.plan import make_plan

MemoryBytes = Mapping[str, int]
"""Estimates by stage."""


def build_on_cluster(
    requests: Sequence[BuildRequest],
    reporters: Sequence[Reporter],
    *,
    address: str,
    location: StoreLocation,
    memory_bytes: Sequence[MemoryBytes],
) -> tuple[Ending, ...]:
    """Build recipes by the workers of a scheduler.

    Args:
        requests: what to build; all in one store.
        reporters: one for each.
        address: of the scheduler.
        location: where the store is.
        memory_bytes: for each, estimates of what its stages need; may be empty.

    Returns:
        How each recipe ended.

    Raises:
        ClusterError: no scheduler answers, or a worker is not fit; nothing was started.
        ToolError: Dask distributed is not installed.
        StoreError: the store cannot be used from here.
    """
    store = requests[0].store
    store.open()
    plans = [make_plan(each.recipe, weights=each.weights, base=each.base) for each in requests]
    alone = len(requests) == 1
    with connected(address) as cluster:
        folders = cluster.greet(plans, store, location)
        with ThreadPoolExecutor(max_workers=len(requests)) as threads:
            endings = []
            for request, reporter, estimates in zip(requests, reporters, memory_bytes, strict=True):
                private = (*request.private_paths, *folders)
                checked = dataclasses.replace(request, private_paths=private)
                run = partial(run_on, cluster, location=location, memory_bytes=estimates)
                endings.append(threads.submit(ended, checked, reporter, run, alone=alone))
            return _collect(cluster, endings)


def _collect(cluster: Cluster, endings: "Sequence[Future[Ending]]") -> tuple[Ending, ...]:
    """All endings; an interrupt, or a mistake of ours, ends what still runs."""
    try:
        return tuple(each.result() for each in endings)
    except BaseException:
        cluster.closing.set()
        raise
