"""Where a graph's time goes, by onnxruntime's own profiler, in a process of its own.

    python -m benchmarks.onnx_profile decoder --graph FILE --embed FILE --tokens 280 --threads 2
    python -m benchmarks.onnx_profile vision --graph FILE --threads 2

Prints one JSON object: milliseconds by phase and kind of node, median run. A kind is an op and, of
the decoder's matrices, which of them.
"""

import argparse
import json
import re
import sys
import tempfile
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from statistics import median

import numpy as np
import onnxruntime as ort

from benchmarks.contestant import DECODE, PREFILL, VISION

Kinds = dict[str, float]
_PART = re.compile(r"(\w+_proj|lm_head)/MatMul")


def main() -> None:
    """Run, read the profile, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=("decoder", "vision"))
    parser.add_argument("--graph", type=Path, required=True)
    parser.add_argument("--embed", type=Path)
    parser.add_argument("--tokens", type=int, default=280)
    parser.add_argument("--runs", type=int, default=8)
    parser.add_argument("--threads", type=int, required=True)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        session = _open(arguments.graph, arguments.threads, Path(folder) / "profile")
        if arguments.what == "vision":
            phases = _run_vision(session, arguments.runs)
        else:
            embed = _open(arguments.embed, arguments.threads, None)
            phases = _run_decoder(session, embed, arguments.tokens, arguments.runs)
        events = json.loads(Path(session.end_profiling()).read_text(encoding="utf-8"))
    sys.stdout.write(json.dumps(summed(events, phases)) + "\n")


def summed(events: list[dict[str, object]], phases: list[str]) -> Mapping[str, Kinds]:
    """Milliseconds by phase and kind of node, the median of a phase's runs.

    Args:
        events: of the profiler, times in microseconds.
        phases: of the runs in order; those of an empty name are left out.
    """
    runs = sorted(
        (event for event in events if event["name"] == "model_run"),
        key=lambda event: _number(event["ts"]),
    )
    assert len(runs) == len(phases), f"{len(runs)} runs were profiled, {len(phases)} were made"
    found: dict[str, list[Kinds]] = defaultdict(list)
    for run, phase in zip(runs, phases, strict=True):
        if phase:
            found[phase].append(_kinds_within(events, run))
    return {
        phase: {
            kind: median(run.get(kind, 0.0) for run in of_runs)
            for kind in sorted({kind for run in of_runs for kind in run})
        }
        for phase, of_runs in found.items()
    }


def _kinds_within(events: list[dict[str, object]], run: Mapping[str, object]) -> Kinds:
    begins, lasts = _number(run["ts"]), _number(run["dur"])
    kinds: Kinds = defaultdict(float)
    for event in events:
        if event["cat"] != "Node" or not str(event["name"]).endswith("_kernel_time"):
            continue
        if begins <= _number(event["ts"]) <= begins + lasts:
            details = event["args"]
            assert isinstance(details, dict)
            kinds[_kind(str(details["op_name"]), str(event["name"]))] += (
                _number(event["dur"]) / 1000
            )
    return dict(kinds)


def _kind(op: str, name: str) -> str:
    part = _PART.search(name)
    return f"{op} {part[1]}" if part else op


def _number(value: object) -> float:
    assert isinstance(value, (int, float))
    return float(value)


def _open(path: Path, threads: int, profile: Path | None) -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = threads
    if profile is not None:
        options.enable_profiling = True
        options.profile_file_prefix = str(profile)
    return ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def _run_vision(session: ort.InferenceSession, runs: int) -> list[str]:
    port = session.get_inputs()[0]
    size = int(port.shape[2])
    pixels = np.random.default_rng(0).random((1, 3, size, size), dtype=np.float32)
    for _ in range(1 + runs):
        session.run(None, {port.name: pixels})
    return ["", *[VISION] * runs]


def _run_decoder(
    session: ort.InferenceSession, embed: ort.InferenceSession, tokens: int, runs: int
) -> list[str]:
    ids = np.random.default_rng(0).integers(0, 256, (1, tokens), dtype=np.int64)
    (prompt,) = embed.run(None, {"input_ids": ids})
    empty = {
        port.name: np.zeros((1, port.shape[1], 0, port.shape[3]), dtype=np.float32)
        for port in session.get_inputs()
        if port.name.startswith("past_key_values.")
    }
    names = [port.name for port in session.get_outputs()]

    def append(rows: np.ndarray, cache: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        past = next(iter(cache.values())).shape[2]
        total = past + rows.shape[1]
        feeds = {
            "inputs_embeds": rows,
            "attention_mask": np.ones((1, total), dtype=np.int64),
            "position_ids": np.arange(past, total, dtype=np.int64)[None],
        }
        outputs = dict(zip(names, session.run(names, {**feeds, **cache}), strict=True))
        return {name: outputs[name.replace("past_key_values", "present")] for name in cache}

    cache: dict[str, np.ndarray] = {}
    for _ in range(1 + runs):
        cache = append(prompt, empty)
    for _ in range(1 + 2 * runs):
        cache = append(prompt[:, :1], cache)
    return ["", *[PREFILL] * runs, "", *[DECODE] * (2 * runs)]


if __name__ == "__main__":
    main()
