"""What is in a package, told without running it (and without torch)."""

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from validation.runtimes.ml_program.constants import COMPRESSIONS
from validation.runtimes.ml_program.decode import read_program
from validation.runtimes.ml_program.features import Feature
from validation.runtimes.ml_program.obstacles import Obstacle, find_obstacles
from validation.runtimes.ml_program.package import open_package
from validation.runtimes.ml_program.program import (
    BlobValue,
    Function,
    Immediate,
    Name,
    Operation,
    Program,
    Value,
)
from validation.runtimes.ml_program.weights import Weights

# The parameter of a compressed constant that says how its elements are coded.
_CODES = ("quantized_data", "data", "indices", "indices_nonzero_data", "nonzero_data", "source_val")


@dataclass(frozen=True, kw_only=True)
class FunctionSummary:
    """One function: its interface and how often it uses which op (constants left out)."""

    name: str
    opset: str
    inputs: tuple[Feature, ...]
    outputs: tuple[Feature, ...]
    states: tuple[Feature, ...]
    op_counts: Mapping[str, int]


@dataclass(frozen=True, kw_only=True)
class WeightKind:
    """Constants of one kind in the weight files, such as "fp16" or "palette uint4"."""

    kind: str
    num_constants: int
    size_bytes: int


@dataclass(frozen=True, kw_only=True)
class Summary:
    """A package.

    Attributes:
        weights: what the weight files hold, each blob counted once, largest kind first.
        obstacles: what is known to keep a model, or a part of it, off the Neural Engine.
    """

    path: Path
    specification_version: int
    default_function: str
    functions: tuple[FunctionSummary, ...]
    weights: tuple[WeightKind, ...]
    obstacles: tuple[Obstacle, ...]


def summarize(path: Path) -> Summary:
    """Look into a package.

    Raises:
        PackageError: it is damaged.
    """
    package = open_package(path)
    program = read_program(package.spec)
    weights = _weights(program, Weights(package))
    return Summary(
        path=path,
        specification_version=program.specification_version,
        default_function=program.default_function,
        functions=tuple(_function(function) for function in program.functions.values()),
        weights=weights,
        obstacles=find_obstacles(program, weight_bytes=sum(kind.size_bytes for kind in weights)),
    )


def _function(function: Function) -> FunctionSummary:
    counts = Counter(op.kind for op in function.block.walk() if op.kind != "const")
    return FunctionSummary(
        name=function.name,
        opset=function.opset,
        inputs=function.inputs,
        outputs=function.outputs,
        states=function.states,
        op_counts=dict(counts.most_common()),
    )


def _weights(program: Program, weights: Weights) -> tuple[WeightKind, ...]:
    seen: set[tuple[str, int]] = set()
    counts: Counter[str] = Counter()
    sizes: Counter[str] = Counter()
    for function in program.functions.values():
        for operation in function.block.walk():
            blobs = [value for value in _values(operation) if isinstance(value, BlobValue)]
            fresh = [blob for blob in blobs if (blob.file_name, blob.offset) not in seen]
            if not fresh:
                continue
            kind = _kind(operation)
            counts[kind] += 1
            for blob in fresh:
                seen.add((blob.file_name, blob.offset))
                sizes[kind] += weights.check(blob).size_bytes
    return tuple(
        WeightKind(kind=kind, num_constants=counts[kind], size_bytes=size)
        for kind, size in sizes.most_common()
    )


def _kind(operation: Operation) -> str:
    given = dict(_named_values(operation))
    if operation.kind not in COMPRESSIONS:
        return next(v.type.dtype.value for v in given.values() if isinstance(v, BlobValue))
    label = COMPRESSIONS[operation.kind][0].label
    for name in _CODES:
        value = given.get(name)
        if isinstance(value, BlobValue):
            return f"{label} {value.type.dtype.value}{_table_bits(given)}"
    return label


def _table_bits(given: Mapping[str, Value]) -> str:
    """iOS 16 tables keep indices as bytes; the table's length tells their bits."""
    lut = given.get("lut")
    if "shape" not in given or not isinstance(lut, Immediate | BlobValue) or not lut.type.shape:
        return ""
    return f" ({(lut.type.shape[0] or 1).bit_length() - 1} bits)"


def _named_values(operation: Operation) -> Iterator[tuple[str, Value]]:
    yield from operation.attributes.items()
    for name, bindings in operation.inputs.items():
        for binding in bindings:
            if not isinstance(binding, Name):
                yield name, binding


def _values(operation: Operation) -> Iterator[Value]:
    for _, value in _named_values(operation):
        yield value
