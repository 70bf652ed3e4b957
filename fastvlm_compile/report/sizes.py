"""What every built variant weighs on disk, as measurements beside those of its quality.

A variant that is measured but not shipped has no files in the bundle, so the stages' own files are
weighed; for a shipped variant they are the files that are copied.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path

from fastvlm_compile.plan import WEIGHTS, coreml_parts, onnx_graph_stages
from fastvlm_compile.plan_variants import onnx_graphs
from fastvlm_compile.recipe import Targets
from fastvlm_compile.report.variants import FILES
from fastvlm_compile.verdict import Artifact
from fastvlm_compile.weight_count import num_weights
from validation.measurement import Measurement


def measure_sizes(targets: Targets, artifacts: Mapping[str, Artifact]) -> tuple[Measurement, ...]:
    """`size_bytes` and `bits_per_weight` of every variant that is built.

    Args:
        targets: of the recipe.
        artifacts: of its build.

    Raises:
        CheckpointError: the checkpoint cannot be read.
    """
    from reference.checkpoint.tensors import open_checkpoint

    checkpoint = open_checkpoint(artifacts[WEIGHTS].folder)
    measured: list[Measurement] = []
    for target, variants in targets.variants().items():
        count = num_weights(checkpoint, targets, target)
        for variant in variants:
            files = variant_files(targets, artifacts, target, variant)
            size_bytes = sum(path.stat().st_size for path in files)
            values = {"size_bytes": float(size_bytes), "bits_per_weight": 8 * size_bytes / count}
            measured.extend(
                Measurement(
                    target=target,
                    variant=variant,
                    component=FILES,
                    metric=metric,
                    value=value,
                    num_cases=len(files),
                )
                for metric, value in values.items()
            )
    return tuple(measured)


def variant_files(
    targets: Targets, artifacts: Mapping[str, Artifact], target: str, variant: str
) -> tuple[Path, ...]:
    """Every file of a variant, where its stages left it."""
    found = tuple(_files(targets, artifacts, target, variant))
    assert found, f"nothing was built for {target}.{variant}"
    return found


def _files(
    targets: Targets, artifacts: Mapping[str, Artifact], target: str, variant: str
) -> Iterator[Path]:
    if target == "onnx":
        assert targets.onnx is not None
        graphs = onnx_graphs(variant)
        for stage in onnx_graph_stages(targets.onnx):
            inside = _files_below(artifacts[stage].folder)
            yield from (path for path in inside if path.name.partition(".")[0] in graphs)
    elif target == "coreml":
        assert targets.coreml is not None
        for part in coreml_parts(targets.coreml):
            yield from _files_below(artifacts[f"coreml.{part}.{variant}"].folder)
    else:
        assert target == "mlx", target
        yield from _files_below(artifacts[f"mlx.{variant}"].folder)


def _files_below(folder: Path) -> tuple[Path, ...]:
    return tuple(sorted(path for path in folder.rglob("*") if path.is_file()))
