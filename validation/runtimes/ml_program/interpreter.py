"""Runs a plan, one step after the other."""

from collections.abc import Generator, Iterator
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter

from torch import Tensor

from validation.runtimes.ml_program.errors import ExecutionError
from validation.runtimes.ml_program.plan import (
    BlockPlan,
    Branch,
    Compute,
    Loop,
    ReadState,
    Slot,
    Source,
    Step,
    WriteState,
)
from validation.runtimes.ml_program.state import State
from validation.runtimes.ml_program.store import ConstantStore
from validation.runtimes.ml_program.tensors import STORAGE, round_to_fp16
from validation.runtimes.ml_program.types import DType
from validation.runtimes.ml_program.values import Values


@dataclass(frozen=True, kw_only=True)
class Done:
    """A step that was run.

    Attributes:
        results: its tensors, in the order of `step.outputs`.
        seconds: what its kernel took, rounding not included.
    """

    step: Step
    results: tuple[Tensor, ...]
    seconds: float


_Values = dict[str, Tensor]


class Interpreter:
    """One run of one function."""

    def __init__(
        self,
        *,
        package: Path,
        store: ConstantStore,
        state: State,
        rounded: bool,
        in_place: bool,
    ) -> None:
        """Prepare a run.

        Args:
            rounded: whether every fp16-typed result is rounded to fp16.
            in_place: whether steps marked so may overwrite their input.
        """
        self._package = package
        self._store = store
        self._state = state
        self._rounded = rounded
        self._in_place = in_place

    def run(self, block: BlockPlan, values: _Values) -> Iterator[Done]:
        """Run a block's steps; `values` starts with its arguments and gains its results.

        Raises:
            ExecutionError: a step cannot be run on the values it got.
        """
        for step, frees in zip(block.steps, block.frees, strict=True):
            match step:
                case Compute():
                    done = self._compute(step, values)
                case ReadState():
                    done = self._finish(step, (self._state.tensor(step.state),), 0.0)
                case WriteState():
                    content = self._fetch(step.data, values)
                    self._state.put(step.state, content.clone() if step.copies else content)
                    done = Done(step=step, results=(), seconds=0.0)
                case Branch():
                    done = yield from self._branch(step, values)
                case Loop():
                    done = yield from self._loop(step, values)
            for slot, result in zip(step.outputs, done.results, strict=True):
                values[slot.name] = result
            yield done
            del done
            for name in frees:
                values.pop(name, None)

    def results(self, block: BlockPlan, values: _Values) -> tuple[Tensor, ...]:
        """A block's results once its steps have run."""
        return tuple(self._fetch(source, values) for source in block.outputs)

    def _compute(self, step: Compute, values: _Values) -> Done:
        call = Values(owned=step.in_place and self._in_place)
        for name, sources in step.sources:
            call.put(name, [self._fetch(source, values) for source in sources])
        start = perf_counter()
        try:
            found = step.kernel(call)
        except (RuntimeError, ValueError, IndexError, TypeError) as error:
            shapes = ", ".join(
                f"{name} {[list(tensor.shape) for tensor in call.many(name)]}"
                for name, _ in step.sources
            )
            reason = str(error).splitlines()[0]
            raise self._error(step, f"cannot be run on {shapes}: {reason}") from error
        seconds = perf_counter() - start
        results = found if isinstance(found, tuple) else (found,)
        if self._rounded and step.rounds:
            results = tuple(
                round_to_fp16(result) if slot.type.dtype is DType.FP16 else result
                for slot, result in zip(step.outputs, results, strict=False)
            )
        return self._finish(step, results, seconds)

    def _finish(self, step: Step, results: tuple[Tensor, ...], seconds: float) -> Done:
        if len(results) != len(step.outputs):
            raise self._error(step, f"gives {len(results)} results")
        for slot, result in zip(step.outputs, results, strict=True):
            self._check(step, slot, result)
        return Done(step=step, results=results, seconds=seconds)

    def _check(self, step: Step, slot: Slot, result: Tensor) -> None:
        shape = tuple(result.shape)
        if shape != slot.type.shape and not slot.type.admits(shape):
            raise self._error(
                step, f"gives '{slot.name}' the shape {list(shape)}, declared {slot.type}"
            )
        if result.dtype is not STORAGE[slot.type.dtype]:
            raise self._error(step, f"gives '{slot.name}' as {result.dtype}, declared {slot.type}")

    def _branch(self, step: Branch, values: _Values) -> Generator[Done, None, Done]:
        chosen = step.blocks[0 if bool(self._fetch(step.predicate, values)) else 1]
        inner = dict(values)
        yield from self.run(chosen, inner)
        return self._finish(step, self.results(chosen, inner), 0.0)

    def _loop(self, step: Loop, values: _Values) -> Generator[Done, None, Done]:
        held = tuple(self._fetch(source, values) for source in step.variables)
        while True:
            inner = {**values, **dict(zip(step.condition.inputs, held, strict=True))}
            yield from self.run(step.condition, inner)
            if not bool(self.results(step.condition, inner)[0]):
                return self._finish(step, held, 0.0)
            inner = {**values, **dict(zip(step.body.inputs, held, strict=True))}
            yield from self.run(step.body, inner)
            held = self.results(step.body, inner)

    def _fetch(self, source: Source, values: _Values) -> Tensor:
        if isinstance(source, str):
            return values[source]
        if isinstance(source, Tensor):
            return source
        return self._store.tensor(source, rounded=self._rounded)

    def _error(self, step: Step, message: str) -> ExecutionError:
        return ExecutionError(
            f"{self._package}: {step.operation.label} {message}",
            hint="the program contradicts its own declarations; export it anew",
        )
