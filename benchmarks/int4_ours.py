"""Our int4 build, each step a process to be watched.

    python -m benchmarks.int4_ours calibrate --weights DIR --out DIR --scenes N --photographs N
    python -m benchmarks.int4_ours quantize --weights DIR --out DIR --method search
    python -m benchmarks.int4_ours export --weights DIR --out DIR --quantized DIR
    python -m benchmarks.int4_ours half --weights DIR --out DIR

They are the stages that a build runs, with the rules of the preset `int4`. `half` exports
the float16 weights as they are, to show what a comparison finds where nothing was rounded.
"""

import argparse
import json
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from fastvlm_compile.quantize.calibration_plan import CalibrationPlan
from fastvlm_compile.quantize.choice import Method
from fastvlm_compile.quantize.presets import PRESETS, Rule
from fastvlm_compile.stages import onnx_variants, quantize
from reference.config import load_config

PROMPT = "Describe the image."
_PARTS = {
    "calibration image": "images",
    "calibrate layer": "inputs of layers",
    "case": "cases",
    "writing": "writing",
    "wrote": "checks",
}
"""How what a stage tells begins -> what it is at until it tells something else."""


@dataclass(kw_only=True)
class Stopwatch:
    """A `Progress` that adds up where the time goes, by what is told."""

    seconds: dict[str, float] = field(default_factory=dict)
    _last: tuple[str, float] | None = None

    def __call__(self, done: int, total: int, what: str) -> None:
        """What went before ends now."""
        del done, total
        now_s = time.perf_counter()
        if self._last is not None:
            name, began_s = self._last
            self.seconds[name] = self.seconds.get(name, 0.0) + now_s - began_s
        known = (part for beginning, part in _PARTS.items() if what.startswith(beginning))
        self._last = (next(known, "tensors"), now_s)


def main() -> None:
    """Run one step."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("step", choices=tuple(STEPS))
    parser.add_argument("--weights", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--method", choices=("round_to_nearest", "search", "gptq"))
    parser.add_argument("--calibration", type=Path)
    parser.add_argument("--quantized", type=Path)
    parser.add_argument("--scenes", type=int)
    parser.add_argument("--photographs", type=int)
    parser.add_argument("--context-length", type=int)
    parser.add_argument("--max-bits", type=float)
    parser.add_argument("--timings", type=Path, help="where to say which part took how long")
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True)
    watch = Stopwatch()
    STEPS[arguments.step](arguments, watch)
    watch(1, 1, "end")
    if arguments.timings is not None:
        arguments.timings.write_text(json.dumps(watch.seconds, indent=2), encoding="utf-8")


def _calibrate(arguments: argparse.Namespace, watch: Stopwatch) -> None:
    from fastvlm_compile.checkpoint.small_files import write_processor_folder

    model = load_config(arguments.weights)
    config = CalibrationPlan(
        image_size=model.vision.image_size,
        fit=model.image_aspect_ratio,
        image_position="before",
        scenes=arguments.scenes,
        photographs=arguments.photographs,
        prompts=(PROMPT,),
    )
    with tempfile.TemporaryDirectory() as folder:
        processor = Path(folder) / "processor"
        processor.mkdir()
        write_processor_folder(arguments.weights, processor)
        quantize.calibration(config, {"checkpoint": Path(folder)}, arguments.out, watch)


def _quantize(arguments: argparse.Namespace, watch: Stopwatch) -> None:
    rules = _rules(arguments.method)
    inputs: Mapping[str, Path] = {"weights": arguments.weights}
    if arguments.calibration is not None:
        inputs = {**inputs, "calibration": arguments.calibration}
    quantize.quantize(quantize.config_of(rules), inputs, arguments.out, watch)


def _rules(method: str) -> tuple[Rule, ...]:
    """The preset's, with another method than its own if that is asked for."""
    rules = PRESETS["int4"].quantizations["onnx"].parts["language"].rules
    if method == "gptq":
        return rules
    chosen: Method = "search" if method == "search" else "round_to_nearest"
    return tuple(replace(rule, method=chosen) for rule in rules)


def _export(arguments: argparse.Namespace, watch: Stopwatch) -> None:
    inputs = {"weights": arguments.weights, "quantized": arguments.quantized}
    onnx_variants.language(_graphs("int4", arguments), inputs, arguments.out, watch)


def _half(arguments: argparse.Namespace, watch: Stopwatch) -> None:
    inputs = {"weights": arguments.weights}
    onnx_variants.language_half(_graphs("fp16", arguments), inputs, arguments.out, watch)


def _graphs(variant: str, arguments: argparse.Namespace) -> onnx_variants.OnnxVariantLanguageConfig:
    return onnx_variants.OnnxVariantLanguageConfig(
        variant=variant,
        opset=21,
        logits="last",
        context_length=arguments.context_length,
        max_bits_per_weight=arguments.max_bits,
        share_tied=variant == "int4",
    )


STEPS: Mapping[str, Callable[[argparse.Namespace, Stopwatch], None]] = {
    "calibrate": _calibrate,
    "quantize": _quantize,
    "export": _export,
    "half": _half,
}


if __name__ == "__main__":
    main()
