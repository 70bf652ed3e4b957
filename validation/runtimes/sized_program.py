"""A package with a function for each size of its input, as one program."""

from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import Protocol

from validation.runtimes.chunked_decoder import Arrays
from validation.runtimes.core_ml_vision import PackageDescription, describe_package


class PlainProgram(Protocol):
    """A package, or a function of one, without state."""

    def __call__(self, inputs: Arrays) -> Arrays: ...


class SizedProgram:
    """Runs the function whose input has the shape of what is given.

    Where no function has that shape the default one runs, and refuses it in its own words. A
    package of one function is run as it is.

    Args:
        package: the `.mlpackage`.
        open_function: opens a function, the default one for None; called once for each, when it
            is first needed.
    """

    def __init__(self, package: Path, open_function: Callable[[str | None], PlainProgram]) -> None:
        self._package = package
        self._open_function = open_function
        self._opened: dict[str | None, PlainProgram] = {}

    def __call__(self, inputs: Arrays) -> Arrays:
        """Runs the package once.

        Raises:
            PackageUnreadableError: the package is missing or damaged.
        """
        function = self._function(inputs)
        if function not in self._opened:
            self._opened[function] = self._open_function(function)
        return self._opened[function](inputs)

    @cached_property
    def _description(self) -> PackageDescription:
        return describe_package(self._package)

    def _function(self, inputs: Arrays) -> str | None:
        shapes = {name: array.shape for name, array in inputs.items()}
        for function, signature in sorted(self._description.signatures.items()):
            taken = {port.name: port.dims for port in signature.inputs}
            if taken == shapes and function != self._description.default:
                return function
        return None
