"""Compressed Core ML packages and the quantized embedding table: `Artifacts`."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from fastvlm_compile.corruptions.artifacts import (
    CorruptionInputError,
    NotTheSameError,
    References,
)
from fastvlm_compile.corruptions.coreml_draft import BLOCKWISE, LUT, CoreMLDraft
from fastvlm_compile.corruptions.embedding_table import (
    check_rows,
    rows_of,
    table_draft,
    table_faults,
)
from fastvlm_compile.corruptions.fault import Context, Fault
from fastvlm_compile.corruptions.limits import VARIANT
from fastvlm_compile.corruptions.measuring import Measure, comparison_with, measure_both
from fastvlm_compile.corruptions.stored import Draft
from fastvlm_compile.export.coreml.compress.decode import CompressedReader, same_arrays
from fastvlm_compile.export.coreml.compress.names import (
    Target,
    Targets,
    head_target,
    layer_targets,
    projector_targets,
    vision_targets,
)
from fastvlm_compile.export.coreml.compress.package import package_precision
from fastvlm_compile.export.coreml.compress.rows import take_rows
from fastvlm_compile.export.coreml.contract import Precision
from fastvlm_compile.quantize.tensor import Floats, QuantizedTensor
from fastvlm_compile.quantize.weights_file import QuantizedWeights
from reference.checkpoint.names import EMBED_TOKENS
from validation.component_parity import measure_embed_tokens
from validation.coreml_components import (
    Component,
    measure_decoder,
    measure_projector,
    measure_vision,
)
from validation.coreml_parity import dequantized_outputs
from validation.kill_matrix.draft import Site
from validation.measurement import Measurement
from validation.runtimes.core_ml_paths import EMBEDDING, PROJECTOR, VISION, packages_in_folder
from validation.runtimes.language_layout import read_layout
from validation.runtimes.ml_program_runtime import MLProgramRuntime
from validation.substituted_goldens import SubstitutedGoldens
from validation.tally import Tally


@dataclass(frozen=True, kw_only=True)
class CoreMLArtifacts:
    """A bundle's folder of packages of one variant.

    Attributes:
        folder: with all parts.
        quantized: the tensors they were made from.
        tied: whether the head is the embedding.
    """

    folder: Path
    quantized: QuantizedWeights
    tied: bool
    target: Literal["coreml"] = "coreml"

    @cached_property
    def files(self) -> tuple[str, ...]:
        """Packages that hold quantized tensors, and the table if it does."""
        packages = [name for name, targets in self._targets.items() if targets]
        table = [EMBEDDING] if EMBED_TOKENS in self.quantized.entries else []
        return (*packages, *table)

    def draft(self, file: str) -> Draft:
        """See `Artifacts`."""
        if file == EMBEDDING:
            return table_draft(self.folder / file, self.quantized)
        return CoreMLDraft(self.folder / file, self._targets[file], self.quantized)

    def faults(self, file: str) -> Iterable[Fault]:
        """Shapes and types that the program declares."""
        if file == EMBEDDING:
            yield from table_faults(self.draft(file), file)
            return
        draft = CoreMLDraft(self.folder / file, self._targets[file], self.quantized)
        for name, site in draft.sites().items():
            for kind, parameter, damage in _DECLARED[site.op.type]:
                if parameter in site.op.inputs and _differs(site, parameter):
                    yield Fault(
                        kind=kind, file=file, where=name, change=_declared(name, parameter, damage)
                    )

    def check(self, folder: Path, file: str) -> None:
        """See `Artifacts`."""
        if file == EMBEDDING:
            check_rows(folder / file, self.quantized)
            return
        reader, targets = CompressedReader(folder / file), self._targets[file]
        for function in reader.functions:
            if strange := set(reader.names(function)) ^ targets.keys():
                raise NotTheSameError(f"{file}, {function}: missing or too many: {sorted(strange)}")
            for name, target in targets.items():
                if not same_arrays(reader.read(function, name), self._right(target)):
                    raise NotTheSameError(f"{file}, {function}: {name} is not what was quantized")

    def decoded(self, folder: Path, file: str) -> Mapping[str, Floats]:
        """See `Artifacts`."""
        if file == EMBEDDING:
            return {EMBED_TOKENS: rows_of(folder / file)}
        reader = CompressedReader(folder / file)
        return {
            f"{function}/{name}": reader.read(function, name).dequantize()
            for function in reader.functions
            for name in reader.names(function)
        }

    def components(self, file: str, label: str) -> tuple[str, ...]:
        """See `Artifacts`."""
        del label  # a package is run as a whole
        return (_COMPONENTS.get(file, "decoder"),)

    def measure(
        self, folder: Path, components: Sequence[str], references: References
    ) -> Iterable[Measurement]:
        """See `Artifacts`; in the ML Program executor, rounding as the packages' precision."""
        rounding: Literal["fp16", "none"] = "fp16" if self._precision == "float16" else "none"
        runtime = MLProgramRuntime(packages_in_folder(folder), rounding=rounding)
        for name in components:
            if name == "embedding":
                measures: dict[str, Measure[MLProgramRuntime]] = {name: measure_embed_tokens}
                yield from measure_both("coreml", runtime, (name,), references, measures)
            else:
                yield from _measure_package(name, runtime, references)

    @cached_property
    def _precision(self) -> Precision:
        return package_precision(self.folder / PROJECTOR)

    @cached_property
    def _targets(self) -> dict[str, Targets]:
        names, precision = self.quantized.entries, self._precision
        found: dict[str, Targets] = {
            VISION: vision_targets(names, precision),
            PROJECTOR: projector_targets(names, precision),
        }
        for chunk in read_layout(self.folder).chunks:
            targets: dict[str, Target] = {}
            if chunk.layers is not None:
                for layer in range(chunk.layers.first, chunk.layers.end):
                    targets |= layer_targets(names, layer, precision)
            if (rows := chunk.vocabulary) is not None:
                head = head_target(
                    tied=self.tied, first=rows.first, count=rows.count, precision=precision
                )
                targets |= {stored: each for stored, each in head.items() if each.name in names}
            found[chunk.package] = targets
        return found

    def _right(self, target: Target) -> QuantizedTensor:
        tensor = self.quantized.read(target.name)
        return take_rows(tensor, target.first, target.count or tensor.shape[0])


def open_coreml(folder: Path, quantized: QuantizedWeights, *, tied: bool) -> CoreMLArtifacts:
    """The packages of a folder.

    Raises:
        UserError: a part is missing or damaged.
        CorruptionInputError: nothing in it is quantized.
    """
    packages_in_folder(folder).check()
    artifacts = CoreMLArtifacts(folder=folder, quantized=quantized, tied=tied)
    if not artifacts.files:
        raise CorruptionInputError(f"{folder}: holds none of the quantized tensors")
    return artifacts


def _measure_package(
    name: str, runtime: MLProgramRuntime, references: References
) -> Iterator[Measurement]:
    """As the build's parity stage: each output once, compared with both references."""
    total, rest = (
        Tally(target="coreml", variant=VARIANT, component=each, executor=runtime.executor)
        for each in (name, f"{name}_precision")
    )
    assert isinstance(references.dequantized, SubstitutedGoldens)
    sibling = dequantized_outputs(references.dequantized).arrays
    component = Component(name=name, total=total, precision=rest, sibling=sibling)
    run = {"vision": measure_vision, "projector": measure_projector, "decoder": measure_decoder}
    run[name](comparison_with(references.goldens), runtime, component)
    yield from total.measurements()
    yield from rest.measurements()


_COMPONENTS = {VISION: "vision", PROJECTOR: "projector", EMBEDDING: "embedding"}
"""What each file computes; every other one belongs to the decoder."""

Damage = Callable[[Any], None]


def _swap_axes(value: Any) -> None:
    sizes = value.type.tensorType.dimensions
    first, second = sizes[0].constant.size, sizes[1].constant.size
    sizes[0].constant.size, sizes[1].constant.size = second, first


def _other_sign(value: Any) -> None:
    from coremltools.proto.MIL_pb2 import DataType

    kind = value.type.tensorType
    name = DataType.Name(kind.dataType)
    other = name[1:] if name.startswith("U") else f"U{name}"
    kind.dataType = DataType.Value(other)


_DECLARED: Mapping[str, tuple[tuple[str, str, Damage], ...]] = {
    BLOCKWISE: (
        ("scales declared along the wrong axis", "scale", _swap_axes),
        ("codes declared with the other sign", "data", _other_sign),
    ),
    LUT: (("tables declared along the wrong axis", "lut", _swap_axes),),
}


def _differs(site: Site, parameter: str) -> bool:
    """Whether the parameter is stored, and says something else when it is damaged."""
    argument = site.op.inputs[parameter].arguments[0]
    if not argument.HasField("value"):
        return False
    sizes = [each.constant.size for each in argument.value.type.tensorType.dimensions]
    integers = parameter == "data" and "FLOAT" not in str(argument.value.type.tensorType)
    return integers or (parameter != "data" and sizes[0] != sizes[1])


def _declared(name: str, parameter: str, damage: Damage) -> Callable[[Draft, Context], str]:
    def change(draft: Draft, context: Context) -> str:
        del context
        assert isinstance(draft, CoreMLDraft)
        for site in _named(draft.all_sites(), name):
            damage(site.op.inputs[parameter].arguments[0].value)
        return ""

    return change


def _named(sites: Iterable[Site], name: str) -> Iterator[Site]:
    return (site for site in sites if site.op.outputs[0].name == name)
