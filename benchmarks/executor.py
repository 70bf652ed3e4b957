"""The ML Program executor against the torch reference it must keep up with: the 0.5B at full size.

    python -m benchmarks.executor [--folder DIR] [--report benchmarks/executor]

Writes REPORT.json and REPORT.md. Weights are made up, packages are exported anew; with --folder
they are kept there and found again. Both sides run in turn in one process with two threads, so that
whatever else the machine does hits both.
"""

import argparse
import json
import sys
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from time import perf_counter, process_time
from typing import Literal

import numpy as np
import psutil
import torch

from benchmarks.executor_material import (
    CHECKPOINT,
    COMPRESSED,
    IMAGE_SIZE,
    PRECISIONS,
    Precision,
    find_material,
)
from benchmarks.executor_memory import open_decoder
from benchmarks.page import listed, write
from benchmarks.watch import Watched, describe_machine, watch
from reference.decoding import Session
from reference.fastvlm import FastVLM
from reference.loading import load as load_reference
from reference.session import TorchSession
from validation.runtimes.chunked_session import ChunkedSession
from validation.runtimes.ml_program.cache import ConstantCache
from validation.runtimes.ml_program.executable import Rounding
from validation.runtimes.ml_program_runtime import executed_program

LIBRARIES = ("torch", "numpy", "coremltools")
NUM_THREADS = 2
NUM_IMAGES = 5
NUM_TOKENS = 24
PROMPT_LENGTH = 256
ROUNDING: Mapping[Precision, Rounding] = {"float32": "none", "float16": "fp16"}
"""As parity runs them."""
LIMITS = {"vision": 1.8, "decoder": 2.0}
"""Times of the reference that the executor may take."""

GIB = 2**30
CACHES_MIB = (4096, 256)
"""Room for decompressed constants: for all of them, and for a part."""

Component = Literal["vision", "decoder"]
Run = Callable[[], np.ndarray]


@dataclass(frozen=True, kw_only=True)
class Timed:
    """One package beside the reference.

    Attributes:
        component: "vision": an image; "decoder": one more token.
        precision: of the package.
        reference_s, executor_s: medians of wall time.
        ratio: the median of the ratios of each turn, in wall time.
        cpu_ratio: the same in processor time of the whole process, which other work on the
            machine disturbs less.
        limit: the ratio that is allowed.
        turns: how many.
        worst_relative_l2: of the results, to show that both did the same.
    """

    component: Component
    precision: Precision
    reference_s: float
    executor_s: float
    ratio: float
    cpu_ratio: float
    limit: float
    turns: int
    worst_relative_l2: float


@dataclass(frozen=True, kw_only=True)
class Memory:
    """The decoder with layers in 4 bits, in a process of its own with a bounded cache of constants.

    Attributes:
        cache_mib: the bound.
        token_s: median time of a token.
        cost: of the process, PyTorch's import included.
    """

    cache_mib: int
    token_s: float
    cost: Watched


def main() -> None:
    """Export, measure, write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--report", type=Path, default=Path("benchmarks/executor"))
    arguments = parser.parse_args()
    torch.set_num_threads(NUM_THREADS)
    with tempfile.TemporaryDirectory() as temporary:
        folder = find_material(arguments.folder or Path(temporary))
        memory = measure_memory(folder)
        load_before = psutil.getloadavg()[0]
        timed = (*measure_vision(folder), *measure_decoder(folder))
    load = max(load_before, psutil.getloadavg()[0])
    machine = describe_machine(LIBRARIES)
    report = {
        "timed": [asdict(each) for each in timed],
        "memory": [asdict(each) for each in memory],
        "threads": NUM_THREADS,
        "machine": machine,
        "load_1_minute": round(load, 2),
    }
    write(arguments.report.with_suffix(".json"), json.dumps(report, indent=2))
    write(arguments.report.with_suffix(".md"), markdown(timed, memory, machine, load))


def measure_vision(folder: Path) -> tuple[Timed, ...]:
    """One image through the tower, again and again."""
    model = load_reference(folder / CHECKPOINT)
    pixels = np.random.default_rng(0).random((1, 3, IMAGE_SIZE, IMAGE_SIZE), dtype=np.float32)
    given = torch.from_numpy(pixels)

    def reference() -> np.ndarray:
        with torch.inference_mode():
            return model.vision_tower(given).numpy()

    def executor(precision: Precision) -> Run:
        package = folder / precision / "fastvithd.mlpackage"
        program = executed_program(package, rounding=ROUNDING[precision])
        return lambda: program({"images": pixels})["image_features"]

    return in_turns("vision", reference, executor, NUM_IMAGES)


def measure_decoder(folder: Path) -> tuple[Timed, ...]:
    """One more token behind a prompt, again and again; all three decode the same tokens."""
    model = load_reference(folder / CHECKPOINT)
    ids = np.random.default_rng(0).integers(0, 1000, PROMPT_LENGTH + NUM_TOKENS + 1)
    prompt = embed(model, ids[:PROMPT_LENGTH])

    def steps(session: Session) -> Run:
        session.start()
        tokens = iter(ids[PROMPT_LENGTH:])
        return lambda: session.step(np.array([next(tokens)]))

    def executor(precision: Precision) -> Run:
        decoder = open_decoder(folder / precision, ROUNDING[precision], ConstantCache())
        return steps(ChunkedSession(decoder, lambda given: embed(model, given), prompt))

    reference = steps(TorchSession(model.language, torch.from_numpy(prompt)[None]))
    return in_turns("decoder", reference, executor, NUM_TOKENS)


def embed(model: FastVLM, ids: np.ndarray) -> np.ndarray:
    """[L] -> [L, H]."""
    with torch.inference_mode():
        return model.embed(torch.from_numpy(ids)[None])[0].numpy()


def in_turns(
    component: Component, reference: Run, executor: Callable[[Precision], Run], num_turns: int
) -> tuple[Timed, ...]:
    """Runs all in turns, after one turn that does not count: it widens and maps constants."""
    runs = {"reference": reference} | {name: executor(name) for name in PRECISIONS}
    wall: dict[str, list[float]] = {name: [] for name in runs}
    cpu: dict[str, list[float]] = {name: [] for name in runs}
    worst = dict.fromkeys(runs, 0.0)
    for turn in range(num_turns + 1):
        found = {}
        for name, run in runs.items():
            begun, used = perf_counter(), process_time()
            found[name] = run()
            if turn:
                wall[name].append(perf_counter() - begun)
                cpu[name].append(process_time() - used)
            worst[name] = max(worst[name], relative_l2(found[name], found["reference"]))
    return tuple(
        Timed(
            component=component,
            precision=name,
            reference_s=median(wall["reference"]),
            executor_s=median(wall[name]),
            ratio=ratio(wall[name], wall["reference"]),
            cpu_ratio=ratio(cpu[name], cpu["reference"]),
            limit=LIMITS[component],
            turns=num_turns,
            worst_relative_l2=worst[name],
        )
        for name in PRECISIONS
    )


def ratio(executor: list[float], reference: list[float]) -> float:
    """Median of the ratios of each turn."""
    return median(one / other for one, other in zip(executor, reference, strict=True))


def relative_l2(found: np.ndarray, expected: np.ndarray) -> float:
    """|found - expected| / |expected|."""
    return float(np.linalg.norm(found.astype(np.float32) - expected) / np.linalg.norm(expected))


def measure_memory(folder: Path) -> tuple[Memory, ...]:
    """The same tokens with much and with little room."""
    found = []
    with tempfile.TemporaryDirectory() as scratch:
        out = Path(scratch) / "seconds.json"
        for cache_mib in CACHES_MIB:
            module = [sys.executable, "-m", "benchmarks.executor_memory"]
            cost = watch([*module, str(folder / COMPRESSED), str(cache_mib), str(out)])
            seconds = json.loads(out.read_text(encoding="utf-8"))
            found.append(Memory(cache_mib=cache_mib, token_s=median(seconds), cost=cost))
    return tuple(found)


def markdown(
    timed: tuple[Timed, ...], memory: tuple[Memory, ...], machine: dict[str, str], load: float
) -> str:
    """The report as a page."""
    lines = [
        "# The ML Program executor against the torch reference",
        "",
        f"FastVLM 0.5B, made-up weights, {NUM_THREADS} threads on both sides, in turns in one "
        f"process. Tower: an image of {IMAGE_SIZE} pixels. Decoder: one more token behind "
        f"{PROMPT_LENGTH}. Float16 packages are run with every result rounded, as parity does.",
        "",
        "| package | reference s | executor s | ratio | in processor time | allowed | turns "
        "| relative L2 |",
        "|---|---:|---:|---:|---:|---:|---:|---:|",
    ]
    lines += [
        f"| {each.component}, {each.precision} | {each.reference_s:.3f} | {each.executor_s:.3f} "
        f"| {each.ratio:.2f} | {each.cpu_ratio:.2f} | {each.limit:.1f} | {each.turns} "
        f"| {each.worst_relative_l2:.1e} |"
        for each in timed
    ]
    lines += [
        "",
        "The decoder with its layers in 4 bits (blocks of 32), constants decompressed into a cache "
        "of bounded size; the rest is decompressed anew for each token:",
        "",
        "| cache MiB | peak allocated GiB | s per token |",
        "|---:|---:|---:|",
    ]
    lines += [
        f"| {each.cache_mib} | {each.cost.peak_anonymous_bytes / GIB:.2f} | {each.token_s:.2f} |"
        for each in memory
    ]
    lines += [
        "",
        f"Machine: {listed(machine)}. "
        f"Load over the last minute at most {load:.1f}; the measurement itself is up to "
        f"{NUM_THREADS} of it.",
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
