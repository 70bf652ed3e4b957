"""Our int4 against onnxruntime's own quantizers at the same block size and symmetry.

    python -m benchmarks.int4_quality [--report benchmarks/int4_quality] [--scenes 80]

Writes REPORT.json and REPORT.md. All linears of the shipped tiny FastVLM's decoder are quantized
(trained, so that its logits mean something), and single matrices in the 0.5B shapes.
"""

import argparse
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import psutil

from benchmarks import onnxruntime_int4 as theirs
from benchmarks.int4_report import Report, Row, Table, heading, write_report
from benchmarks.tiny_decoder import CHECKPOINT, TinyDecoder
from benchmarks.watch import describe_machine
from fastvlm_compile.checkpoint.language_statistics import LanguageStatistics
from fastvlm_compile.checkpoint.synthesize import plan_size
from fastvlm_compile.quantize.affine import round_to_nearest, search
from fastvlm_compile.quantize.gptq import gptq
from fastvlm_compile.quantize.scheme import Affine
from fastvlm_compile.quantize.tensor import Floats, QuantizedTensor
from reference.scenes.scene import held_out, training

LIBRARIES = ("numpy", "numba", "torch", "onnx", "onnxruntime")
SCHEMES = tuple(
    Affine(bits=4, block_size=block, symmetric=symmetric)
    for block in (32, 128)
    for symmetric in (True, False)
)
THEIRS: tuple[theirs.Method, ...] = ("DEFAULT", "RTN", "k_quant", "HQQ")
LARGE = {
    "model.layers.11.self_attn.q_proj.weight": (896, 896),
    "model.layers.11.mlp.gate_proj.weight": (4864, 896),
    "model.layers.11.mlp.down_proj.weight": (896, 4864),
}
FIRST_CALIBRATION_SCENE = 900_000_000
"""Training draws its scenes below this number; held-out ones are a set apart."""
FIRST_HELD_OUT_SCENE = 5_000
"""Beyond those that goldens and task questions are taken from."""


@dataclass(frozen=True, kw_only=True)
class Made:
    """A weight as quantized: [O, I] dequantized, and the bytes of a MatMulNBits node's inputs."""

    weight: Floats
    size_bytes: int


Quantizer = Callable[[Floats, Floats], Made]
"""Weight [O, I] and second moments of its inputs [I, I] -> what became of it."""


@dataclass(frozen=True, kw_only=True)
class Moments:
    """Second moments of a linear's inputs: those to calibrate with, and those of unseen inputs."""

    calibration: Floats
    unseen: Floats


def main() -> None:
    """Parse, measure, write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--report", type=Path, default=Path("benchmarks/int4_quality"))
    parser.add_argument("--checkpoint", type=Path, default=CHECKPOINT)
    parser.add_argument("--scenes", type=int, default=80, help="of each kind (default 80)")
    arguments = parser.parse_args()
    warm_up()
    tiny = measure_tiny(arguments.checkpoint, arguments.scenes)
    large = measure_large()
    write_report(
        arguments.report,
        Report(
            tiny=tiny,
            large=large,
            num_scenes=arguments.scenes,
            machine=describe_machine(LIBRARIES),
            load_15_minutes=round(psutil.getloadavg()[2], 2),
        ),
    )


def quantizers(scheme: Affine) -> dict[str, Quantizer]:
    """Everything that makes int4 of this scheme, by its name in the tables."""

    def ours(make: Callable[[Floats, Floats], QuantizedTensor]) -> Quantizer:
        def run(weight: Floats, moments: Floats) -> Made:
            made = make(weight, moments)
            return Made(weight=made.dequantize(), size_bytes=node_bytes(made))

        return run

    def of_onnxruntime(method: theirs.Method) -> Quantizer:
        def run(weight: Floats, _: Floats) -> Made:
            made = theirs.quantize(
                weight, method, block_size=scheme.block_size, symmetric=scheme.symmetric
            )
            return Made(weight=made.weight, size_bytes=made.size_bytes)

        return run

    table = {
        f"onnxruntime {method}": of_onnxruntime(method)
        for method in THEIRS
        if theirs.offers(method, symmetric=scheme.symmetric)
    }
    table["ours: round_to_nearest"] = ours(lambda weight, _: round_to_nearest(weight, scheme))
    table["ours: search"] = ours(lambda weight, _: search(weight, scheme))
    table["ours: search, calibrated"] = ours(
        lambda weight, moments: search(weight, scheme, np.diag(moments).copy())
    )
    table["ours: gptq"] = ours(lambda weight, moments: gptq(weight, scheme, moments))
    return table


def node_bytes(tensor: QuantizedTensor) -> int:
    """Bytes of a MatMulNBits node that holds it: float32 scales, blocks and rows padded."""
    assert isinstance(tensor.scheme, Affine)
    num_outputs, num_blocks = tensor.scales.shape
    codes = num_outputs * num_blocks * tensor.scheme.block_size // 2
    zeros = 0 if tensor.scheme.symmetric else num_outputs * -(-num_blocks // 2)
    return int(codes + 4 * tensor.scales.size + zeros)


def warm_up() -> None:
    """Let numba compile before anything is timed."""
    for scheme in SCHEMES:
        gptq(np.eye(4, 32, dtype=np.float32), scheme, np.eye(32))


def measure_tiny(checkpoint: Path, num_scenes: int) -> Table:
    """All linears of the tiny decoder, with KL on held-out scenes."""
    decoder = TinyDecoder(checkpoint)
    seen = decoder.examples(training(FIRST_CALIBRATION_SCENE + i) for i in range(num_scenes))
    unseen = decoder.examples(held_out(FIRST_HELD_OUT_SCENE + i) for i in range(num_scenes))
    calibration, other = decoder.second_moments(seen), decoder.second_moments(unseen)
    weights = decoder.linears()
    moments = {name: Moments(calibration=calibration[name], unseen=other[name]) for name in weights}
    reference = decoder.logits(unseen)

    def with_logits(row: Row, made: Mapping[str, Floats]) -> Row:
        with decoder.with_linears(made):
            comparison = decoder.compare(unseen, reference)
        figures = {
            "kl_answers": comparison.answers.kl_mean,
            "kl_everywhere": comparison.everywhere.kl_mean,
            "top1_everywhere": comparison.everywhere.top1_agreement,
        }
        return Row(**{**asdict(row), **figures})

    return {
        heading(scheme): [
            measure(name, quantizer, weights, moments, with_logits)
            for name, quantizer in quantizers(scheme).items()
        ]
        for scheme in SCHEMES
    }


def measure_large() -> Table:
    """Single matrices of the made-up 0.5B checkpoint, with made-up correlated inputs."""
    statistics = LanguageStatistics(config=plan_size("0.5b", "apple").config, seed=0)
    weights = {
        name: np.concatenate([b.ravel() for b in statistics.blocks(name, shape)])
        .reshape(shape)
        .astype(np.float16)
        .astype(np.float32)
        for name, shape in LARGE.items()
    }
    inputs = {shape[1]: made_up_moments(shape[1]) for shape in LARGE.values()}
    moments = {name: inputs[shape[1]] for name, shape in LARGE.items()}
    return {
        heading(scheme): [
            measure(name, quantizer, weights, moments, lambda row, _: row)
            for name, quantizer in quantizers(scheme).items()
        ]
        for scheme in SCHEMES
    }


def made_up_moments(size: int) -> Moments:
    """Of inputs with a quarter of the directions in common and uneven strength."""
    rng = np.random.default_rng(size)
    mixing = rng.standard_normal((size // 4, size), dtype=np.float32)
    strength = np.exp(0.7 * rng.standard_normal(size, dtype=np.float32))

    def draw() -> Floats:
        hidden = rng.standard_normal((2 * size, size // 4), dtype=np.float32) @ mixing
        own = rng.standard_normal((2 * size, size), dtype=np.float32) * np.float32(size**0.5 / 4)
        x = (hidden + own) * strength
        moments: Floats = x.T @ x / np.float32(len(x))
        return moments

    return Moments(calibration=draw(), unseen=draw())


def measure(
    name: str,
    quantizer: Quantizer,
    weights: Mapping[str, Floats],
    moments: Mapping[str, Moments],
    finish: Callable[[Row, Mapping[str, Floats]], Row],
) -> Row:
    """Quantize all of `weights` and say what it cost; `finish` adds what the model says."""
    started_s = time.perf_counter()
    try:
        made = {key: quantizer(w, moments[key].calibration) for key, w in weights.items()}
    except theirs.QuantizerFailedError as error:
        return Row(quantizer=name, failed=str(error))
    seconds = time.perf_counter() - started_s
    errors = {key: w - made[key].weight for key, w in weights.items()}
    squares = [sum(float((x**2).sum()) for x in part.values()) for part in (errors, weights)]
    outputs = [
        row_sum(error, moments[key].unseen) / row_sum(weights[key], moments[key].unseen)
        for key, error in errors.items()
    ]
    row = Row(
        quantizer=name,
        size_bytes=sum(item.size_bytes for item in made.values()),
        weight_error=squares[0] / squares[1],
        output_error=float(np.mean(outputs)),
        seconds=seconds,
    )
    print(f"{name}: {seconds:.1f} s")
    return finish(row, {key: item.weight for key, item in made.items()})


def row_sum(rows: Floats, moments: Floats) -> float:
    """tr(rows H rows^T)."""
    return float(np.sum((rows @ moments) * rows, dtype=np.float64))


if __name__ == "__main__":
    main()
