"""The machine's own speed: reading memory and multiplying float32 matrices."""

import itertools
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from fastvlm_compile.latency.request import Speeds

_READ_BYTES = 256 << 20
"""More than the last-level cache that one machine gives a process, in most cases."""
_CHUNKS = 8
"""Timed one by one: a chunk is short enough to fall between two interruptions."""
_SIDE = 512
_SECONDS = 0.8
_LEAST_RUNS = 8


def measure_speeds(threads: int) -> Speeds:
    """The best of many short runs: what interferes only ever makes them slower.

    Args:
        threads: that read; numpy's BLAS takes as many as its environment told it.
    """
    words = np.ones(_READ_BYTES // 8, dtype=np.int64)
    chunks = [np.array_split(chunk, threads) for chunk in np.array_split(words, _CHUNKS)]
    with ThreadPoolExecutor(threads) as pool:
        turns = itertools.cycle(chunks)
        # A reduction of 8-byte words, which numpy does without holding the interpreter's lock.
        reading = _best(lambda: list(pool.map(np.bitwise_or.reduce, next(turns))))
    random = np.random.default_rng(0)
    one = random.standard_normal((_SIDE, _SIDE), dtype=np.float32)
    product = np.empty_like(one)
    computing = _best(lambda: np.matmul(one, one, out=product))
    return Speeds(
        read_bytes_per_s=words.nbytes / _CHUNKS / reading,
        sgemm_flop_per_s=2 * _SIDE**3 / computing,
    )


def _best(run: Callable[[], object]) -> float:
    """Seconds of the fastest run."""
    run()
    best, ends, count = float("inf"), time.perf_counter() + _SECONDS, 0
    while count < _LEAST_RUNS or time.perf_counter() < ends:
        started = time.perf_counter()
        run()
        best = min(best, time.perf_counter() - started)
        count += 1
    return best
