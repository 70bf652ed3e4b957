"""Linear layers through oneDNN, as the reference and the executor run them, beside PyTorch's own.

    python -m benchmarks.linear [--report benchmarks/linear]

Writes REPORT.json and REPORT.md. The gate and the down projection of every size of Qwen2 at one row
(a token), 25 (a short prompt) and 280 (a prompt with an image), both in turns in one process.
"""

import argparse
import json
import random
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from itertools import permutations
from pathlib import Path
from statistics import median
from time import perf_counter

import torch
import torch.nn.functional as F

from benchmarks.page import listed, table, write
from benchmarks.watch import describe_machine
from fastvlm_compile.checkpoint.sizes import size_named
from reference.linear import linear

NUM_THREADS = 2
NUM_TURNS = 7
ROWS = (1, 25, 280)
RELEASED = ("0.5b", "1.5b", "7b")


@dataclass(frozen=True, kw_only=True)
class Product:
    """[rows, inputs] by [outputs, inputs], and what both ways take, median seconds."""

    size: str
    rows: int
    inputs: int
    outputs: int
    pytorch_s: float
    ours_s: float

    @property
    def ratio(self) -> float:
        """Our time of PyTorch's."""
        return self.ours_s / self.pytorch_s

    def gigaflops(self, seconds: float) -> float:
        """Multiplications and additions in a nanosecond."""
        return 2e-9 * self.rows * self.inputs * self.outputs / seconds


def main() -> None:
    """Measure, write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--report", type=Path, default=Path("benchmarks/linear"))
    report = parser.parse_args().report
    torch.set_num_threads(NUM_THREADS)
    found = [
        measure(name, rows, inputs, outputs)
        for name, size in ((name, size_named(name)) for name in RELEASED)
        for inputs, outputs in permutations((size.hidden_size, size.intermediate_size))
        for rows in ROWS
    ]
    machine = describe_machine(("torch",))
    data = {"products": [asdict(each) for each in found], "machine": machine}
    write(report.with_suffix(".json"), json.dumps(data, indent=1))
    write(report.with_suffix(".md"), markdown(found, machine))


@torch.inference_mode()
def measure(size: str, rows: int, inputs: int, outputs: int) -> Product:
    """Both ways on the same numbers, in an order that changes, after a turn that does not count."""
    x, weight = torch.randn(rows, inputs), torch.randn(outputs, inputs)
    ways = {"pytorch": F.linear, "ours": linear}
    times: dict[str, list[float]] = {name: [] for name in ways}
    for turn in range(NUM_TURNS + 1):
        for name, run in random.sample(list(ways.items()), len(ways)):
            begun = perf_counter()
            run(x, weight)
            if turn:
                times[name].append(perf_counter() - begun)
    return Product(
        size=size,
        rows=rows,
        inputs=inputs,
        outputs=outputs,
        pytorch_s=median(times["pytorch"]),
        ours_s=median(times["ours"]),
    )


def markdown(found: list[Product], machine: Mapping[str, str]) -> str:
    """The page."""
    rows = [
        (
            each.size,
            f"{each.rows} x {each.inputs} x {each.outputs}",
            f"{each.gigaflops(each.pytorch_s):.0f}",
            f"{each.gigaflops(each.ours_s):.0f}",
            f"{each.ratio:.2f}",
        )
        for each in found
    ]
    return "\n".join(
        (
            "# Linear layers through oneDNN beside PyTorch's own",
            "",
            f"Float32, {NUM_THREADS} threads, both in turns in one process. `make bench` makes "
            "this page.",
            "",
            *table(
                ("size", "product", "PyTorch GFLOP/s", "ours GFLOP/s", "time, ours of PyTorch's"),
                rows,
            ),
            "",
            f"Median ratio: {median(each.ratio for each in found):.2f}.",
            "",
            f"Machine: {listed(machine)}.",
        )
    )


if __name__ == "__main__":
    main()
