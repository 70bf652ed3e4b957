"""A bundle by hand: a manifest and a report that fit each other, and no weights."""

import hashlib
from collections.abc import Sequence
from pathlib import Path

from report_samples import whole_build

from fastvlm_compile.bundle.manifest import InputContract, Manifest, Provenance, Variant
from fastvlm_compile.tree_digest import FileRecord
from validation.consumers.outcome import Outcome
from validation.gates import Gate, judge
from validation.latency.environment import Environment
from validation.latency.samples import Conditions, LatencyRun, Phase, Settings, VariantRun
from validation.layer_curves import LayerCurve, LayerError, LayerReport, render_layers
from validation.measurement import Measurement
from validation.parity_file import ParityReport, render_parity

HOSTILE = '<script>alert("1")</script>&amp;\'"><img src=x onerror=alert(2)>'
GATES = (
    Gate(target="onnx", variant="fp32", component="decoder", metric="kl_mean", max=1e-6, why="a"),
    Gate(target="mlx", variant="int4", component="decoder", metric="kl_mean", max=1.0, why="b"),
    Gate(
        target="coreml",
        variant="lut4",
        component="end_to_end",
        metric="task_accuracy",
        min=0.9,
        why="c",
    ),
)
"""Two hold, one cannot be judged."""


def make_bundle(
    folder: Path,
    *,
    name: str = "sample",
    gates: Sequence[Gate] = GATES,
    measurements: Sequence[Measurement] | None = None,
    layers: Sequence[LayerCurve] = (),
    words: str = "plain words",
) -> Path:
    """A folder with a manifest and what the report reads; `words` stand wherever words may."""
    found = tuple(measurements if measurements is not None else whole_build())
    report = render_parity(ParityReport(measurements=found, gates=judge(found, gates)))
    curves = render_layers(LayerReport(curves=tuple(layers))).encode() if layers else None
    write_bundle(folder, report.encode(), layers=curves, name=name, words=words)
    return folder


def curves(*, words: str = "int4") -> tuple[LayerCurve, ...]:
    """Two quantizations; the second one left the tower alone."""
    return tuple(
        LayerCurve(
            variant=variant,
            executor=words,
            case=words,
            image=words,
            layers=(
                *(
                    LayerError(part="vision", name=f"stage {i}", relative_l2=tower * i)
                    for i in range(1, 6)
                ),
                *(
                    LayerError(part="decoder", name=f"layer {i}", relative_l2=decoder * (i + 1))
                    for i in range(24)
                ),
            ),
        )
        for variant, tower, decoder in ((words, 1e-3, 4e-3), ("int4-mlx", 0.0, 3.9e-3))
    )


def write_bundle(
    folder: Path,
    parity: bytes,
    *,
    layers: bytes | None = None,
    name: str = "sample",
    words: str = "w",
) -> None:
    """A manifest that is right about a `parity.json`, and `layers.json`, of any content."""
    (folder / "reports").mkdir(parents=True)
    files = {"reports/layers.json": layers, "reports/parity.json": parity}
    records = []
    for path, content in files.items():
        if content is not None:
            (folder / path).write_bytes(content)
            digest = hashlib.sha256(content).hexdigest()
            records.append(FileRecord(path=path, size_bytes=len(content), sha256=digest))
    outcome = Outcome(
        consumer=words, version=words, variant="onnx.fp32", status="agreed", detail=words
    )
    manifest = Manifest(
        name=name,
        contract=InputContract(
            image_size=256,
            fit="pad",
            image_position="before",
            context_length=512,
            tokens_per_image=16,
        ),
        variants=(
            Variant(
                target="onnx",
                variant="fp32",
                files=("onnx/vision_encoder.onnx",),
                size_bytes=9_400_000,
                bits_per_weight=33.0,
                gates=(),
            ),
            Variant(
                target="torch",
                variant="fp32",
                files=("torch/model.safetensors",),
                size_bytes=4_600_000,
                bits_per_weight=16.0,
                gates=(),
            ),
        ),
        provenance=Provenance(
            checkpoint_digest="c0ffee",
            source_revision="0123abc",
            tools={"torch": "2", words: words},
            recipe=f"schema: 1\nname: {words}\n",
            license=words,
        ),
        files=tuple(records),
        consumers=(outcome,),
    )
    (folder / "manifest.json").write_bytes(manifest.to_bytes())


def samples(*, bundle: str = "sample", words: str = "a processor") -> LatencyRun:
    """Two variants, of three phases; one more that could not be run."""
    names = (("load", 0.05, ""), ("prefill.64", 0.01, "position"), ("decode", 0.001, "token"))
    measured = tuple(
        VariantRun(
            runtime="onnxruntime",
            variant=variant,
            executor="onnxruntime 1",
            status="measured",
            reason="",
            phases=tuple(
                Phase(
                    name=name,
                    blocks=(tuple(base * factor * (1 + i / 100) for i in range(30)),),
                    num_items=1,
                    item=item,
                    work=None,
                )
                for name, base, item in names
            ),
            peak_memory_bytes=(10**8,),
            notes=(),
        )
        for variant, factor in (("fp32", 1.0), ("int4", 0.4))
    )
    absent = VariantRun(
        runtime="coreml",
        variant="float16 cpu_only",
        executor="",
        status="not run",
        reason=words,
        phases=(),
        peak_memory_bytes=(),
        notes=(),
    )
    return LatencyRun(
        bundle=bundle,
        bundle_digest="",
        started_at="2026-01-31T12:00:00Z",
        settings=Settings(threads=2, prompt_lengths=(64,), min_seconds=1.0, min_runs=10),
        environment=Environment(
            processor=words,
            num_cores=2,
            threads=2,
            governor="not told",
            memory_bytes=8 * 10**9,
            system="Linux",
            python="3.11",
            versions={"onnxruntime": "1"},
        ),
        conditions=Conditions(load_before=0.0, others_during=0.0),
        roofline=None,
        variants=(*measured, absent),
    )
