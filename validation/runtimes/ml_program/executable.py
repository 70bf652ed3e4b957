"""A package ready to run on the CPU."""

from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Literal

import numpy as np
import torch

from validation.runtimes.ml_program.binder import bind
from validation.runtimes.ml_program.cache import ConstantCache
from validation.runtimes.ml_program.decode import read_program
from validation.runtimes.ml_program.errors import InputError, PackageError
from validation.runtimes.ml_program.features import Feature
from validation.runtimes.ml_program.interface import check_interface, to_array, to_tensors
from validation.runtimes.ml_program.interpreter import Done, Interpreter
from validation.runtimes.ml_program.ops.table import TABLE
from validation.runtimes.ml_program.package import open_package
from validation.runtimes.ml_program.plan import FunctionPlan, ValueInfo
from validation.runtimes.ml_program.program import Function, Program
from validation.runtimes.ml_program.state import State
from validation.runtimes.ml_program.store import ConstantStore
from validation.runtimes.ml_program.tensors import to_numpy
from validation.runtimes.ml_program.watch import Watch
from validation.runtimes.ml_program.weights import Weights

Rounding = Literal["none", "fp16"]
ROUNDINGS: tuple[Rounding, ...] = ("none", "fp16")


def load(
    package: Path, *, function: str | None = None, cache: ConstantCache | None = None
) -> "Executable":
    """Read a package and make one of its functions ready to run.

    Everything is checked here: the manifest, the program, each record of the weight files, and
    that every op, type, attribute and opset is implemented.

    Args:
        package: the `.mlpackage` directory.
        function: which function; None for the package's default one.
        cache: where decompressed and widened constants are kept; give one cache to several
            packages to bound them together. By default each package has its own of 4 GiB.

    Raises:
        PackageError: the package is damaged or contradicts itself, or has no such function.
        UnsupportedOp: it asks for what is not implemented; everything of that is named.
    """
    opened = open_package(package)
    program = read_program(opened.spec)
    weights = Weights(opened)
    store = ConstantStore(weights, cache if cache is not None else ConstantCache())
    return _executable(program, weights, store, function or program.default_function)


def _executable(
    program: Program, weights: Weights, store: ConstantStore, name: str
) -> "Executable":
    if name not in program.functions:
        known = ", ".join(sorted(program.functions))
        raise PackageError(f"{weights.path} has no function '{name}'", hint=f"functions: {known}")
    function = program.functions[name]
    plan = bind(function, weights=weights, table=TABLE)
    check_interface(function, plan, weights.path)
    return Executable(program=program, weights=weights, store=store, function=function, plan=plan)


class Executable:
    """One function of a package, ready to run. Made by `load`."""

    def __init__(
        self,
        *,
        program: Program,
        weights: Weights,
        store: ConstantStore,
        function: Function,
        plan: FunctionPlan,
    ) -> None:
        self._program = program
        self._weights = weights
        self._store = store
        self._function = function
        self._plan = plan

    @property
    def path(self) -> Path:
        """The package."""
        return self._weights.path

    @property
    def function(self) -> Function:
        """The function that `run` runs, as the package holds it."""
        return self._function

    @property
    def functions(self) -> tuple[str, ...]:
        """Names of all functions of the package."""
        return tuple(self._program.functions)

    @property
    def inputs(self) -> tuple[Feature, ...]:
        """What `run` takes."""
        return self._function.inputs

    @property
    def outputs(self) -> tuple[Feature, ...]:
        """What `run` gives."""
        return self._function.outputs

    @property
    def states(self) -> tuple[Feature, ...]:
        """What the function keeps between runs."""
        return self._function.states

    @property
    def values(self) -> tuple[ValueInfo, ...]:
        """Every value that a run computes, in order."""
        return tuple(self._plan.block.values())

    @property
    def value_names(self) -> tuple[str, ...]:
        """Names of all values that a run computes, in order: what `keep` may name."""
        return tuple(value.name for value in self.values)

    def with_function(self, name: str) -> "Executable":
        """Another function of the same package, sharing weights and their cache.

        Raises:
            PackageError: there is no such function.
            UnsupportedOp: it asks for what is not implemented.
        """
        return _executable(self._program, self._weights, self._store, name)

    def forget_constants(self) -> None:
        """Let go of this package's constants in the cache; they are made anew when needed."""
        self._store.forget()

    def make_state(self) -> State:
        """A fresh state: all zeros."""
        return State(self._plan.states)

    def run(
        self,
        inputs: Mapping[str, np.ndarray],
        *,
        state: State | None = None,
        rounding: Rounding = "none",
        watch: Watch | None = None,
        keep: Collection[str] = (),
    ) -> dict[str, np.ndarray]:
        """Run the function.

        Args:
            inputs: arrays of exactly the declared names, shapes and element types; images are
                uint8 [height, width, 3] RGB, or [height, width] if gray.
            state: read and updated; needed if the function has states.
            rounding: "none" computes everything in float32, "fp16" rounds every fp16-typed
                result to fp16. Core ML's own results lie somewhere between: a declared type is
                the least precision it keeps.
            watch: told of every op.
            keep: names of intermediate values to return beside the outputs.

        Returns:
            Arrays by name, outputs first in the function's order. fp16-typed values are float16
            with rounding and float32 without; values without dimensions have shape ().

        Raises:
            InputError: inputs, state or names are not the package's.
            ExecutionError: an op cannot be run on its values.
            PackageError: compressed weights do not decompress.
        """
        wanted = self._known(keep)
        kept: dict[str, np.ndarray] = {}
        values: dict[str, torch.Tensor] = {}
        with torch.inference_mode():
            interpreter = self._start(inputs, state, rounding, values, in_place=not wanted)
            for done in interpreter.run(self._plan.block, values):
                if watch is not None and done.step.outputs:
                    name = done.step.outputs[0].name
                    watch.note(done.step.operation.kind, name, done.seconds, done.results)
                if wanted:
                    kept.update(_kept(done, wanted, rounded=rounding == "fp16"))
                del done  # its results may be freed before the next step runs
            return {**self._results(interpreter, values, rounded=rounding == "fp16"), **kept}

    def steps(
        self,
        inputs: Mapping[str, np.ndarray],
        *,
        state: State | None = None,
        rounding: Rounding = "none",
    ) -> Iterator[Done]:
        """Run the function step by step; see `run`. Nothing works in place."""
        values: dict[str, torch.Tensor] = {}
        interpreter = self._start(inputs, state, rounding, values, in_place=False)
        running = interpreter.run(self._plan.block, values)
        while True:
            with torch.inference_mode():  # never across a yield: it is the whole thread's mode
                done = next(running, None)
            if done is None:
                return
            yield done

    def _start(
        self,
        inputs: Mapping[str, np.ndarray],
        state: State | None,
        rounding: Rounding,
        values: dict[str, torch.Tensor],
        *,
        in_place: bool,
    ) -> Interpreter:
        if rounding not in ROUNDINGS:
            raise InputError(f"rounding '{rounding}' is none of {', '.join(ROUNDINGS)}")
        values.update(to_tensors(inputs, self._function, self._plan))
        self._store.begin_run()
        return Interpreter(
            package=self.path,
            store=self._store,
            state=self._fitting(state),
            rounded=rounding == "fp16",
            in_place=in_place,
        )

    def _fitting(self, state: State | None) -> State:
        if state is None:
            if self._plan.states:
                raise InputError(
                    f"function '{self._function.name}' has states and got none",
                    hint="pass state=make_state(), and the same one to each further step",
                )
            return State({})
        for name, declared in self._plan.states.items():
            if state.types.get(name) != declared:
                raise InputError(
                    f"state '{name}' is {declared} in function '{self._function.name}'"
                    f" and {state.types.get(name, 'missing')} in the one given"
                )
        return state

    def _known(self, keep: Collection[str]) -> frozenset[str]:
        wanted = frozenset(keep)
        missing = wanted - set(self.value_names) if wanted else wanted
        if missing:
            raise InputError(
                f"{self.path}: no value is called {', '.join(sorted(missing))}",
                hint="`coreml inspect PKG --json` lists every op and what it defines",
            )
        return wanted

    def _results(
        self, interpreter: Interpreter, values: dict[str, torch.Tensor], *, rounded: bool
    ) -> dict[str, np.ndarray]:
        images = {feature.name: feature.image for feature in self._function.outputs}
        results = interpreter.results(self._plan.block, values)
        return {
            name: to_array(result, declared, images[name], rounded=rounded)
            for (name, declared), result in zip(self._plan.outputs.items(), results, strict=True)
        }


def _kept(done: Done, wanted: frozenset[str], *, rounded: bool) -> dict[str, np.ndarray]:
    return {
        slot.name: to_numpy(result, slot.type.dtype, rounded=rounded)
        for slot, result in zip(done.step.outputs, done.results, strict=True)
        if slot.name in wanted
    }
