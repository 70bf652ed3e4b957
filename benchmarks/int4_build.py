"""An int4 decoder built by us and by onnxruntime-genai's builder, from the same checkpoint.

    make bench-env    # the builder's own environment, once
    python -m benchmarks.int4_build [--report benchmarks/int4_build] [--checkpoint DIR]

Writes REPORT.json and REPORT.md. Without --checkpoint a synthetic 0.5B is made up. Everything else
is temporary. Every step is a process of its own, whose time and memory are watched.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import psutil

from benchmarks.int4_build_report import Build, Report, Step, write_report
from benchmarks.int4_decode import Decoded
from benchmarks.onnx_bytes import decoder_bytes
from benchmarks.plain_qwen2 import write_plain_qwen2
from benchmarks.watch import describe_machine, watch
from fastvlm_compile.checkpoint.synthesize import plan_size, write_checkpoint
from fastvlm_compile.progress import silent
from fastvlm_compile.quantize.roles import role_of
from reference.checkpoint.names import EMBED_TOKENS
from reference.checkpoint.tensors import open_checkpoint

LIBRARIES = ("numpy", "numba", "torch", "onnx", "onnx-ir", "onnxruntime")
THEIR_LIBRARIES = ("onnxruntime-genai", "onnxruntime", "onnx", "onnx-ir", "torch", "transformers")
ENVIRONMENT = Path(__file__).parent / ".venv-genai"
THREADS = 2

THEIR_OPTIONS: Mapping[str, tuple[str, ...]] = {
    "genai builder, defaults": (),
    "genai builder, embedding too": ("op_types_to_quantize=MatMul/Gather",),
}
"""By default the builder leaves an embedding that is not the head in float32; we quantize it."""
CONTROL = "ours, float16 weights"
"""Nothing is rounded: what it differs from the reference is what comparing costs."""
MAX_CONTROL_KL = 1e-3
"""Float32 rounding stays below 1e-6 also through 24 made-up layers; a wrong cache is above 1."""
OUR_METHODS = {
    "ours, round_to_nearest": "round_to_nearest",
    "ours, search": "search",
    "ours, gptq (the preset)": "gptq",
}


@dataclass(frozen=True, kw_only=True)
class Setting:
    """What all builds start from.

    Attributes:
        weights: the checkpoint.
        plain: its language model as a plain Qwen2 checkpoint.
        folder: where builds go.
        scenes, photographs: calibration inputs of gptq.
        context_length: positions that our graph knows.
        max_bits: per weight, of each of our graphs, else the build fails.
    """

    weights: Path
    plain: Path
    folder: Path
    scenes: int
    photographs: int
    context_length: int
    max_bits: float


def main() -> None:
    """Parse, build, decode, write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--report", type=Path, default=Path("benchmarks/int4_build"))
    parser.add_argument("--checkpoint", type=Path, help="instead of the synthetic 0.5B")
    parser.add_argument("--scenes", type=int, default=4, help="that gptq is calibrated on")
    parser.add_argument("--photographs", type=int, default=1)
    parser.add_argument("--context-length", type=int, default=8192)
    parser.add_argument("--max-bits", type=float, default=5.1)
    arguments = parser.parse_args()
    python = ENVIRONMENT / "bin" / "python"
    if not python.is_file():
        parser.error(f"{ENVIRONMENT.name} is missing: run `make bench-env` first")
    load = psutil.getloadavg()
    with tempfile.TemporaryDirectory() as folder:
        setting = prepare(arguments, Path(folder))
        builds = [build_ours(name, method, setting) for name, method in OUR_METHODS.items()]
        builds[:0] = [
            build_theirs(name, options, setting, python) for name, options in THEIR_OPTIONS.items()
        ]
        decoded = decode(builds, setting)
        report = Report(
            checkpoint="synthetic 0.5B" if arguments.checkpoint is None else "given",
            builds=tuple(builds),
            decoded=tuple(decoded),
            num_weights=num_weights(setting.weights),
            scenes=setting.scenes,
            photographs=setting.photographs,
            threads=THREADS,
            machine=describe_machine(LIBRARIES),
            their_versions=versions(python),
            load_before=tuple(round(value, 2) for value in load),
            load_after=tuple(round(value, 2) for value in psutil.getloadavg()),
        )
    write_report(arguments.report, report)


def prepare(arguments: argparse.Namespace, folder: Path) -> Setting:
    """The checkpoint, and its language model alone."""
    weights, plain = arguments.checkpoint, folder / "plain"
    if weights is None:
        weights = folder / "weights"
        weights.mkdir()
        write_checkpoint(plan_size("0.5b", "apple"), 0, weights, silent)
    plain.mkdir()
    write_plain_qwen2(weights, plain)
    return Setting(
        weights=weights,
        plain=plain,
        folder=folder,
        scenes=arguments.scenes,
        photographs=arguments.photographs,
        context_length=arguments.context_length,
        max_bits=arguments.max_bits,
    )


def build_theirs(name: str, options: tuple[str, ...], setting: Setting, python: Path) -> Build:
    """`-p int4 -e cpu`: symmetric, blocks of 32, accuracy level 4, as ours."""
    out, cache = setting.folder / name, setting.folder / "cache"
    module = "onnxruntime_genai.models.builder"
    command = [str(python), "-m", module, "-i", str(setting.plain), "-o", str(out)]
    command += ["-c", str(cache), "-p", "int4", "-e", "cpu"]
    if options:
        command += ["--extra_options", *options]
    offline = {**os.environ, "HF_HUB_OFFLINE": "1"}
    step = Step(name="all", cost=watch(command, env=offline))
    return finished(name, (step,), out / "model.onnx", embed=None)


def build_ours(name: str, method: str, setting: Setting) -> Build:
    """Quantize, then encode; for gptq also prepare the calibration inputs."""
    print(name, flush=True)
    folder = setting.folder / name
    quantized, graphs, calibration = (folder / part for part in ("weights", "onnx", "calibration"))
    folder.mkdir()
    steps: list[Step] = []
    inputs: tuple[object, ...] = ()
    if method == "gptq":
        counts = ("--scenes", setting.scenes, "--photographs", setting.photographs)
        steps.append(our_step("calibrate", setting, calibration, *counts))
        inputs = ("--calibration", calibration)
    steps.append(our_step("quantize", setting, quantized, "--method", method, *inputs))
    options = ("--context-length", setting.context_length, "--max-bits", setting.max_bits)
    steps.append(our_step("export", setting, graphs, "--quantized", quantized, *options))
    decoder = graphs / "decoder_model_merged_q4.onnx"
    return finished(name, tuple(steps), decoder, embed=graphs / "embed_tokens_q4.onnx")


def our_step(name: str, setting: Setting, out: Path, *options: object) -> Step:
    """One process of `benchmarks.int4_ours`."""
    timings = out.with_name(f"{out.name}.json")
    command = [sys.executable, "-m", "benchmarks.int4_ours", name]
    command += ["--weights", str(setting.weights), "--out", str(out), "--timings", str(timings)]
    cost = watch([*command, *(str(option) for option in options)])
    parts = json.loads(timings.read_text(encoding="utf-8"))
    return Step(name=name, cost=cost, parts=parts)


def finished(name: str, steps: tuple[Step, ...], decoder: Path, *, embed: Path | None) -> Build:
    """A build with the bytes of its files."""
    files = [path for path in decoder.parent.iterdir() if ".onnx" in path.name]
    return Build(
        name=name,
        steps=steps,
        file_bytes=sum(path.stat().st_size for path in files),
        decoder_bytes=decoder_bytes(decoder),
        decoder=decoder,
        embed=embed,
    )


def decode(builds: list[Build], setting: Setting) -> list[Decoded]:
    """Speed of every decoder and its distance to the reference, in one process, taking turns."""
    out = setting.folder / "decode"
    out.mkdir()
    graphs = out / "graphs.json"
    listed = {
        build.name: {"decoder": str(build.decoder)}
        | ({} if build.embed is None else {"embed": str(build.embed)})
        for build in builds
    }
    command = [sys.executable, "-m", "benchmarks.int4_decode"]
    places = ["--weights", str(setting.weights), "--out", str(out)]
    listed[CONTROL] = control(setting)
    graphs.write_text(json.dumps(listed), encoding="utf-8")
    watch([*command, "reference", *places])
    watch([*command, "compare", *places, "--graphs", str(graphs), "--threads", str(THREADS)])
    rows = json.loads((out / "decoded.json").read_text(encoding="utf-8"))
    decoded = [Decoded(**row) for row in rows]
    (unrounded,) = (row.kl_max for row in decoded if row.name == CONTROL)
    if not unrounded <= MAX_CONTROL_KL:
        raise RuntimeError(f"{CONTROL} is {unrounded} nats from the reference: compared wrongly")
    return decoded


def control(setting: Setting) -> dict[str, str]:
    """Our graphs with the checkpoint's own float16 weights; their size does not matter."""
    out = setting.folder / "half"
    options = ("--context-length", setting.context_length, "--max-bits", 64)
    our_step("half", setting, out, *options)
    return {
        "decoder": str(out / "decoder_model_merged_fp16.onnx"),
        "embed": str(out / "embed_tokens_fp16.onnx"),
    }


def num_weights(weights: Path) -> int:
    """Of the decoder's matrices: its linears and its head."""
    from math import prod

    checkpoint = open_checkpoint(weights)
    shapes = {name: info.shape for name, info in checkpoint.tensors.items()}
    head = "embedding" if checkpoint.tied else "head"
    assert EMBED_TOKENS in shapes
    return sum(
        prod(shape) for name, shape in shapes.items() if role_of(name, shape) in ("language", head)
    )


def versions(python: Path) -> dict[str, str]:
    """Of the builder's libraries."""
    script = "import importlib.metadata as m, json, sys\n"
    script += "print(json.dumps({name: m.version(name) for name in sys.argv[1:]}))"
    command = [str(python), "-c", script, *THEIR_LIBRARIES]
    found = json.loads(subprocess.run(command, capture_output=True, check=True).stdout)
    return {str(name): str(version) for name, version in found.items()}


if __name__ == "__main__":
    main()
