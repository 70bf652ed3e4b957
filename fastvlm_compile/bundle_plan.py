"""Artifacts and verdicts of a build -> the plan of its bundle, and the digest of all of it."""

import dataclasses
import hashlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

import yaml

from fastvlm_compile.bundle.assemble import BundlePlan, Part, VariantPlan
from fastvlm_compile.bundle.folder_files import (
    APPLE_APP,
    VISION_PACKAGE,
    apple_app_files,
    mlx_files,
)
from fastvlm_compile.bundle.layout import GOLDENS, coreml_folder, quantized_goldens
from fastvlm_compile.bundle.manifest import InputContract, Provenance
from fastvlm_compile.code_digest import CodeReader
from fastvlm_compile.judging import Judgement
from fastvlm_compile.key import canonical_json
from fastvlm_compile.plan import (
    CHECKPOINT,
    GOLDEN,
    ONNX_GENAI,
    TORCH_WEIGHTS,
    WEIGHTS,
    coreml_parts,
    further_sizes,
    onnx_graph_stages,
)
from fastvlm_compile.plan_quantize import parts_of
from fastvlm_compile.plan_variants import onnx_graphs
from fastvlm_compile.recipe import (
    AppleAppTarget,
    CoreMLTarget,
    Recipe,
    Targets,
    quantization_of,
)
from fastvlm_compile.runner import Finished
from fastvlm_compile.structure import to_plain
from fastvlm_compile.verdict import Artifact
from fastvlm_compile.weight_count import num_weights

if TYPE_CHECKING:
    from reference.checkpoint.tensors import Checkpoint

_TORCH_VARIANT = "fp32"  # the precision it is run in; the files keep the checkpoint's own


def bundle_key(recipe: Recipe, finished: Finished, judgement: Judgement, *, licence: str) -> str:
    """The digest of everything that decides a bundle's bytes."""
    from fastvlm_compile.bundle.onnx_files import example_source

    return hashlib.sha256(
        canonical_json(
            {
                "artifacts": {name: a.digest for name, a in finished.artifacts.items()},
                "gates": [repr(row) for row in judgement.rows],
                "provenance": to_plain(_provenance(recipe, finished, licence)),
                "code": dict(CodeReader().digests(__name__)),
                "example": hashlib.sha256(example_source()).hexdigest(),
            }
        )
    ).hexdigest()


def plan_bundle(
    recipe: Recipe,
    finished: Finished,
    judgement: Judgement,
    *,
    licence: str,
    private_paths: tuple[Path, ...],
) -> BundlePlan:
    """What goes into the bundle, and where; `licence` is that of the weights.

    Raises:
        CheckpointError, ConfigError, PromptError, BundleError: the checkpoint's files cannot be
            used for a bundle.
    """
    from fastvlm_compile.bundle.onnx_files import onnx_files
    from fastvlm_compile.bundle.root_files import root_files
    from reference.checkpoint.tensors import open_checkpoint

    artifacts = finished.artifacts
    checkpoint = open_checkpoint(artifacts[WEIGHTS].folder)
    contract = InputContract(
        image_size=recipe.image.size,
        fit=recipe.image.fit,
        image_position=recipe.image.position,
        context_length=recipe.context_length,
        tokens_per_image=(recipe.image.size // 64) ** 2,
        further_coreml_sizes=further_sizes(recipe),
    )
    parts = tuple(_parts(recipe, artifacts, judgement))
    raw_config = json.loads((checkpoint.path / "config.json").read_text(encoding="utf-8"))
    root = root_files(
        raw_config=raw_config,
        tied=checkpoint.tied,
        tokenizer_dir=artifacts[CHECKPOINT].folder / "processor",
        contract=contract,
        paths=[part.path for part in parts],
    )
    return BundlePlan(
        name=recipe.name,
        parts=parts,
        root_files={
            **root,
            **_folder_files(recipe.targets, artifacts, root),
            **onnx_files(recipe.targets.onnx, root, contract),
        },
        contract=contract,
        variants=tuple(_variants(recipe, parts, judgement, checkpoint)),
        provenance=_provenance(recipe, finished, licence),
        private_paths=private_paths,
        quantizations=_quantizations(recipe, artifacts),
    )


def _parts(
    recipe: Recipe, artifacts: Mapping[str, Artifact], judgement: Judgement
) -> Iterator[Part]:
    from validation.package_outputs import OUTPUTS_FILE

    targets = recipe.targets
    if targets.onnx is not None:
        own = () if targets.onnx.genai is None else (ONNX_GENAI,)
        for stage in (*onnx_graph_stages(targets.onnx), *own):
            for source in sorted(artifacts[stage].folder.iterdir()):
                yield Part(path=f"onnx/{source.name}", source=source)
    if targets.coreml is not None:
        yield from _coreml_parts(targets.coreml, artifacts)
    if targets.mlx is not None:
        for variant in targets.mlx.variants:
            for source in sorted(artifacts[f"mlx.{variant}"].folder.iterdir()):
                yield Part(path=f"mlx/{variant}/{source.name}", source=source)
    if targets.apple_app is not None:
        yield from _app_parts(targets.apple_app, artifacts)
    if targets.torch is not None:
        yield Part(path="torch", source=artifacts[TORCH_WEIGHTS].folder)
    if recipe.goldens.ship:
        yield Part(path=GOLDENS, source=artifacts[GOLDEN].folder)
        for name in targets.measured().get("reference", ()):
            outputs = artifacts[f"parity.reference.{name}"].folder / OUTPUTS_FILE
            yield Part(path=f"{quantized_goldens(name)}/{OUTPUTS_FILE}", source=outputs)
    for path in judgement.files:
        yield Part(path=f"reports/{path.name}", source=path)


def _coreml_parts(target: CoreMLTarget, artifacts: Mapping[str, Artifact]) -> Iterator[Part]:
    for precision in target.ship:
        for part in coreml_parts(target):
            for source in sorted(artifacts[f"coreml.{part}.{precision}"].folder.iterdir()):
                path = f"{coreml_folder(target.ship, precision)}/{source.name}"
                yield Part(path=path, source=source)


def _app_parts(app: AppleAppTarget, artifacts: Mapping[str, Artifact]) -> Iterator[Part]:
    """The weights and the package; the small files are written, see `_folder_files`."""
    vision = artifacts[f"coreml.vision.{app.vision}"].folder / VISION_PACKAGE
    yield Part(path=f"{APPLE_APP}/{VISION_PACKAGE}", source=vision)
    for source in sorted(artifacts[f"apple_app.{app.variant}"].folder.glob("model*")):
        yield Part(path=f"{APPLE_APP}/{source.name}", source=source)


def _folder_files(
    targets: Targets, artifacts: Mapping[str, Artifact], root: Mapping[str, bytes]
) -> dict[str, bytes]:
    """What makes folders of the bundle complete by themselves, by path."""
    found: dict[str, bytes] = {}
    for variant in targets.mlx.variants if targets.mlx is not None else ():
        found |= mlx_files(root, f"mlx/{variant}")
    if targets.apple_app is not None:
        found |= apple_app_files(root, artifacts[f"apple_app.{targets.apple_app.variant}"].folder)
    return found


def _variants(
    recipe: Recipe, parts: tuple[Part, ...], judgement: Judgement, checkpoint: "Checkpoint"
) -> Iterator[VariantPlan]:
    for target, variants in recipe.targets.measured().items():
        for variant in variants:
            rows = (row for row in judgement.rows if (row.target, row.variant) == (target, variant))
            yield VariantPlan(
                target=target,
                variant=variant,
                files=_files_of(recipe.targets, parts, target, variant),
                num_weights=num_weights(checkpoint, recipe.targets, target),
                gates=tuple(rows),
                quantization=quantization_of(target, variant) or "",
            )
    if (app := recipe.targets.apple_app) is not None:
        yield VariantPlan(
            target=APPLE_APP,
            variant=app.variant,
            files=tuple(part.path for part in _in_folder(parts, APPLE_APP)),
            num_weights=num_weights(checkpoint, recipe.targets, APPLE_APP),
            gates=(),  # the same numbers are judged as those of mlx and coreml
        )
    if recipe.targets.torch is not None:
        yield VariantPlan(
            target="torch",
            variant=_TORCH_VARIANT,
            files=("torch",),
            num_weights=num_weights(checkpoint, recipe.targets, "torch"),
            gates=(),
        )


def _files_of(
    targets: Targets, parts: tuple[Part, ...], target: str, variant: str
) -> tuple[str, ...]:
    """What of the bundle a variant consists of; nothing where it was only measured."""
    if target == "onnx":
        graphs = onnx_graphs(variant)
        return tuple(part.path for part in _in_folder(parts, "onnx") if _stem(part.path) in graphs)
    if target == "mlx":
        return tuple(part.path for part in _in_folder(parts, f"mlx/{variant}"))
    if target == "coreml" and targets.coreml is not None and variant in targets.coreml.ship:
        folder = coreml_folder(targets.coreml.ship, variant)
        return tuple(part.path for part in _in_folder(parts, folder))
    return ()


def _quantizations(recipe: Recipe, artifacts: Mapping[str, Artifact]) -> dict[str, dict[str, str]]:
    """Tensor by tensor, how it is stored."""
    from fastvlm_compile.quantize.scheme import describe
    from fastvlm_compile.quantize.weights_file import open_quantized

    found = {}
    for each in recipe.targets.quantized():
        stages = parts_of(recipe, each.target, each.variant).values()
        entries = open_quantized(*(artifacts[stage].folder for stage in stages)).entries
        found[each.quantization] = {
            tensor: f"{describe(entry.scheme)}, {entry.method}" for tensor, entry in entries.items()
        }
    return found


def _stem(path: str) -> str:
    """`onnx/embed_tokens_q4.onnx_data` -> `embed_tokens_q4`."""
    return PurePosixPath(path).name.partition(".")[0]


def _in_folder(parts: tuple[Part, ...], folder: str) -> Iterator[Part]:
    """The parts right in a folder."""
    return (part for part in parts if PurePosixPath(part.path).parent.as_posix() == folder)


def _provenance(recipe: Recipe, finished: Finished, licence: str) -> Provenance:
    code: dict[str, str] = dict(CodeReader().digests(__name__))
    tools: dict[str, str] = {}
    for ingredients in finished.ingredients:
        code |= ingredients.code
        tools |= ingredients.tools
    return Provenance(
        checkpoint_digest=finished.artifacts[WEIGHTS].digest,
        source_revision=hashlib.sha256(canonical_json(code)).hexdigest(),
        tools=tools,
        recipe=recipe_text(recipe),
        license=licence,
    )


def recipe_text(recipe: Recipe) -> str:
    """The recipe as YAML, everything that it extends merged in; no folder of this machine."""
    choice = recipe.checkpoint
    if choice.path is not None:
        base = None if choice.base is None else Path(choice.base.name)
        choice = dataclasses.replace(choice, path=Path(choice.path.name), base=base)
    plain = to_plain(dataclasses.replace(recipe, checkpoint=choice, extend=""))
    return yaml.safe_dump(_without_defaults(plain), sort_keys=False, allow_unicode=True)


def _without_defaults(value: object) -> object:
    """Leaves out what was not given: None and the empty name of no base recipe."""
    if isinstance(value, dict):
        return {k: _without_defaults(v) for k, v in value.items() if v is not None and v != ""}
    if isinstance(value, list):
        return [_without_defaults(item) for item in value]
    return value
