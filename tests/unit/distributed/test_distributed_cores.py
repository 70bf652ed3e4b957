"""Stages on a worker have the threads that they would have in a local build."""

import pytest

from fastvlm_compile.distributed.cores import use_all_cores

dask = pytest.importorskip("dask")
pytest.importorskip("distributed")  # brings its configuration


def test_what_dask_set_goes_and_what_somebody_chose_stays() -> None:
    given = dask.config.get("distributed.nanny.pre-spawn-environ")
    assert given["OMP_NUM_THREADS"] == 1
    set_by_nanny = {name: str(value) for name, value in given.items()}
    environment = {**set_by_nanny, "OPENBLAS_NUM_THREADS": "3", "PATH": "1"}
    use_all_cores(environment)
    threads = {name: value for name, value in environment.items() if "THREADS" in name}
    assert threads == {"OPENBLAS_NUM_THREADS": "3"}
    assert environment["PATH"] == "1"
    assert environment.keys() >= {"MALLOC_TRIM_THRESHOLD_"}
