"""Declared inputs and outputs of a graph or package, and the check against what is expected."""

from collections.abc import Sequence
from dataclasses import dataclass

ANY_SYMBOL = "?"
"""Stands for a dimension that may be given at run time, whatever the graph calls it."""


@dataclass(frozen=True, kw_only=True)
class Port:
    """One input or output: name, numpy dtype name, and dimensions (numbers or symbols)."""

    name: str
    dtype: str
    dims: tuple[int | str, ...]

    def __str__(self) -> str:
        return f"{self.name} {self.dtype}[{', '.join(map(str, self.dims))}]"


@dataclass(frozen=True, kw_only=True)
class Signature:
    """Everything a graph takes and gives."""

    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]


def signature_problems(expected: Signature, found: Signature) -> tuple[str, ...]:
    """Every difference, naming what was expected and what was found."""
    return (
        *_port_problems("input", expected.inputs, found.inputs),
        *_port_problems("output", expected.outputs, found.outputs),
    )


def _port_problems(kind: str, expected: Sequence[Port], found: Sequence[Port]) -> list[str]:
    by_name = {port.name: port for port in found}
    problems = [
        f"{kind} {port}: expected, found none of that name"
        for port in expected
        if port.name not in by_name
    ]
    names = {port.name for port in expected}
    problems += [f"{kind} {port}: not expected" for port in found if port.name not in names]
    problems += [
        f"{kind}: expected {port}, found {by_name[port.name]}"
        for port in expected
        if port.name in by_name and not _fits(port, by_name[port.name])
    ]
    return problems


def _fits(expected: Port, found: Port) -> bool:
    if expected.dtype != found.dtype or len(expected.dims) != len(found.dims):
        return False
    return all(
        isinstance(have, str) if want == ANY_SYMBOL else have == want
        for want, have in zip(expected.dims, found.dims, strict=True)
    )
