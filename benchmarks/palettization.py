"""Our palettization against coremltools' k-means on the same matrices, and all of the 0.5B decoder.

    python -m benchmarks.palettization [--report benchmarks/palettization]

Writes REPORT.json and REPORT.md. Values are those of the made-up 0.5B checkpoint.
"""

import argparse
import hashlib
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import psutil

from benchmarks import coremltools_palettization as theirs
from benchmarks.palettization_report import Comparison, Decoder, Report, write_report
from benchmarks.watch import describe_machine
from fastvlm_compile.checkpoint.language_statistics import LanguageStatistics
from fastvlm_compile.checkpoint.synthesize import plan_size
from fastvlm_compile.quantize.palettize import palettize
from fastvlm_compile.quantize.scheme import Palette, describe
from fastvlm_compile.quantize.tensor import Floats, QuantizedTensor
from reference.checkpoint.expected import expected_tensors

LIBRARIES = ("numpy", "numba", "coremltools", "scikit-learn")
MATRIX = "model.layers.11.mlp.gate_proj.weight"
SCHEMES = (
    Palette(bits=4, group_size=0),
    Palette(bits=4, group_size=32),
    Palette(bits=4, group_size=16),
    Palette(bits=6, group_size=32),
)
DECODER_SCHEME = Palette(bits=4, group_size=32)
ROUNDING = 1e-9
"""Errors are sums of squares in float64; the same partition may be summed up in another order."""
REPEATS = 5


def main() -> None:
    """Parse, measure, write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--report", type=Path, default=Path("benchmarks/palettization"))
    arguments = parser.parse_args()
    before = psutil.getloadavg()[0]
    compile_s = warm_up()
    decoder = measure_decoder()
    weight = decoder_weights()[MATRIX]
    comparisons = tuple(
        compare(values, name, scheme)
        for name, values in (
            ("float16", made_up(MATRIX, weight)),
            ("bfloat16", to_bfloat16(made_up(MATRIX, weight))),
        )
        for scheme in SCHEMES
    )
    report = Report(
        matrix=MATRIX,
        repeats=REPEATS,
        compile_s=compile_s,
        comparisons=comparisons,
        decoder=decoder,
        machine=describe_machine(LIBRARIES),
        load_1_minute_before=round(before, 2),
        load_1_minute_after=round(psutil.getloadavg()[0], 2),
    )
    write_report(arguments.report, report)


def warm_up() -> float:
    """Let numba compile before anything is timed; the seconds that took."""
    started_s = time.perf_counter()
    weight = np.linspace(-1, 1, 8192, dtype=np.float32).reshape(8, 1024)
    for values in (weight, weight.astype(np.float16).astype(np.float32)):
        palettize(values, Palette(bits=4, group_size=4))
    return time.perf_counter() - started_s


def decoder_weights() -> dict[str, tuple[int, ...]]:
    """Names and shapes of the matrices of the 0.5B decoder's layers."""
    shapes = expected_tensors(plan_size("0.5b", "apple").config)
    return {
        name: shape
        for name, shape in shapes.items()
        if name.startswith("model.layers.") and len(shape) == 2
    }


def made_up(name: str, shape: tuple[int, ...]) -> Floats:
    """A tensor of the made-up checkpoint: float16 values in float32."""
    statistics = LanguageStatistics(config=plan_size("0.5b", "apple").config, seed=0)
    blocks = [block.astype(np.float16) for block in statistics.blocks(name, shape)]
    return np.concatenate(blocks).astype(np.float32)


def to_bfloat16(weight: Floats) -> Floats:
    """Nearest bfloat16 values, as far as a float16 package holds them too."""
    bits = weight.view(np.uint32)
    rounded = (bits + 0x7FFF + ((bits >> 16) & 1)) & np.uint32(0xFFFF0000)
    values: Floats = rounded.view(np.float32).astype(np.float16).astype(np.float32)
    return values


def compare(weight: Floats, values: str, scheme: Palette) -> Comparison:
    """Both on one matrix."""
    their = theirs.palettize(weight, scheme)
    ours_s, tensor = timed(weight, scheme, None, time.perf_counter)
    ours_cpu_s, _ = timed(weight, scheme, 1, time.process_time)
    groups = scheme.num_groups(weight.shape)
    our_errors = squared_errors(weight, tensor.dequantize(), groups)
    their_errors = squared_errors(weight, their.weight, groups)
    norm = float(np.square(weight, dtype=np.float64).sum())
    return Comparison(
        scheme=describe(scheme),
        values=values,
        theirs_s=their.wall_s,
        theirs_cpu_s=their.cpu_s,
        theirs_overhead_s=their.overhead_s,
        ours_s=ours_s,
        ours_cpu_s=ours_cpu_s,
        groups=groups,
        groups_higher=int(np.sum(~(our_errors <= their_errors * (1 + ROUNDING)))),
        groups_lower=int(np.sum(our_errors < their_errors * (1 - ROUNDING))),
        theirs_error=float(their_errors.sum()) / norm,
        ours_error=float(our_errors.sum()) / norm,
        worst_group=float((our_errors / their_errors).max()),
    )


def timed(
    weight: Floats, scheme: Palette, num_threads: int | None, clock: Callable[[], float]
) -> tuple[float, QuantizedTensor]:
    """Median seconds of some runs, and what the last one made."""
    seconds = []
    for _ in range(REPEATS):
        started_s = clock()
        tensor = palettize(weight, scheme, num_threads=num_threads)
        seconds.append(clock() - started_s)
    return float(np.median(seconds)), tensor


def squared_errors(weight: Floats, restored: Floats, groups: int) -> npt.NDArray[np.float64]:
    """[G] of each group."""
    off = weight.astype(np.float64) - restored
    errors: npt.NDArray[np.float64] = np.square(off).reshape(groups, -1).sum(axis=1)
    return errors


def measure_decoder() -> Decoder:
    """Palettize every matrix of every layer."""
    weights = decoder_weights()
    seconds = cpu_s = error = norm = 0.0
    digest = hashlib.sha256()
    for name, shape in weights.items():
        weight = made_up(name, shape)
        started_s, started_cpu_s = time.perf_counter(), time.process_time()
        tensor = palettize(weight, DECODER_SCHEME)
        seconds += time.perf_counter() - started_s
        cpu_s += time.process_time() - started_cpu_s
        digest.update(name.encode() + tensor.codes.tobytes() + tensor.tables.tobytes())
        error += float(squared_errors(weight, tensor.dequantize(), 1)[0])
        norm += float(np.square(weight, dtype=np.float64).sum())
    return Decoder(
        scheme=describe(DECODER_SCHEME),
        num_tensors=len(weights),
        num_weights=sum(rows * columns for rows, columns in weights.values()),
        seconds=seconds,
        cpu_s=cpu_s,
        relative_error=error / norm,
        digest=digest.hexdigest(),
    )


if __name__ == "__main__":
    main()
