"""A stage on a worker uses all cores, as it does in a local build.

Dask's nanny holds libraries to one thread, for its tasks are threads of one process. A stage is a
process of its own; with fewer threads it would take longer, and its sums could end in other bits
than those of a local build.
"""

import os
from collections.abc import Mapping, MutableMapping


def use_all_cores(environment: MutableMapping[str, str] = os.environ) -> None:
    """Take back what Dask has set; another number of threads, which somebody chose, stays.

    Args:
        environment: of this worker, which its stages inherit.
    """
    import dask

    given: Mapping[str, object] = dask.config.get("distributed.nanny.pre-spawn-environ", {})
    for name, value in given.items():
        if name.endswith("_NUM_THREADS") and environment.get(name) == str(value):
            del environment[name]
