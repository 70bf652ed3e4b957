"""A function made ready to run: kernels bound, constants resolved, lifetimes known."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from torch import Tensor

from validation.runtimes.ml_program.constants import Derived, Stored
from validation.runtimes.ml_program.op import Kernel
from validation.runtimes.ml_program.program import Operation
from validation.runtimes.ml_program.types import TensorType

# A value computed in this run (by name), a small constant, or a constant fetched when needed.
Source = str | Tensor | Stored | Derived


@dataclass(frozen=True, kw_only=True)
class Slot:
    """A value that a step defines."""

    name: str
    type: TensorType


@dataclass(frozen=True, kw_only=True)
class ValueInfo:
    """A value that a run computes, and the op that defines it."""

    name: str
    kind: str
    type: TensorType


@dataclass(frozen=True, kw_only=True, eq=False)
class Compute:
    """Call a kernel.

    Attributes:
        sources: where each parameter's tensors come from.
        rounds: whether fp16 results need rounding when the run rounds.
        aliases: parameters whose memory the results may share.
        in_place: whether the first parameter's memory may be overwritten.
    """

    operation: Operation
    kernel: Kernel
    sources: tuple[tuple[str, tuple[Source, ...]], ...]
    outputs: tuple[Slot, ...]
    rounds: bool
    aliases: tuple[str, ...] = ()
    in_place: bool = False


@dataclass(frozen=True, kw_only=True, eq=False)
class ReadState:
    """Define a value as the present content of a state."""

    operation: Operation
    state: str
    outputs: tuple[Slot, ...]


@dataclass(frozen=True, kw_only=True, eq=False)
class WriteState:
    """Make a value the content of a state.

    Attributes:
        copies: whether the value's memory is also somebody else's: a constant's or another state's.
    """

    operation: Operation
    state: str
    data: Source
    copies: bool = True
    outputs: tuple[Slot, ...] = ()


@dataclass(frozen=True, kw_only=True, eq=False)
class Branch:
    """Run one of two blocks."""

    operation: Operation
    predicate: Source
    blocks: tuple["BlockPlan", "BlockPlan"]
    outputs: tuple[Slot, ...]


@dataclass(frozen=True, kw_only=True, eq=False)
class Loop:
    """Run a block as long as another gives true; both take the loop's variables."""

    operation: Operation
    variables: tuple[Source, ...]
    condition: "BlockPlan"
    body: "BlockPlan"
    outputs: tuple[Slot, ...]


Step = Compute | ReadState | WriteState | Branch | Loop


@dataclass(frozen=True, kw_only=True, eq=False)
class BlockPlan:
    """Steps in order.

    Attributes:
        inputs: names its arguments get.
        frees: per step, the values that nobody needs after it.
        outputs: where its results come from.
    """

    inputs: tuple[str, ...]
    steps: tuple[Step, ...]
    frees: tuple[tuple[str, ...], ...]
    outputs: tuple[Source, ...]

    def values(self) -> Iterator["ValueInfo"]:
        """Every value defined in it, nested blocks included."""
        for step in self.steps:
            for slot in step.outputs:
                yield ValueInfo(name=slot.name, kind=step.operation.kind, type=slot.type)
            for block in nested(step):
                yield from block.values()


@dataclass(frozen=True, kw_only=True, eq=False)
class FunctionPlan:
    """A whole function.

    Attributes:
        parameters: types of its tensor inputs.
        states: types of its states.
        outputs: types of its results, by name, in order.
    """

    block: BlockPlan
    parameters: Mapping[str, TensorType]
    states: Mapping[str, TensorType]
    outputs: Mapping[str, TensorType]


def nested(step: Step) -> tuple[BlockPlan, ...]:
    """The blocks inside a step."""
    if isinstance(step, Branch):
        return step.blocks
    if isinstance(step, Loop):
        return (step.condition, step.body)
    return ()


def used(step: Step) -> Iterator[str]:
    """Names of the run-time values that a step reads, its nested blocks included."""
    match step:
        case Compute():
            sources: tuple[Source, ...] = tuple(
                source for _, given in step.sources for source in given
            )
        case WriteState():
            sources = (step.data,)
        case Branch():
            sources = (step.predicate,)
        case Loop():
            sources = step.variables
        case ReadState():
            sources = ()
    yield from (source for source in sources if isinstance(source, str))
    for block in nested(step):
        for inner in block.steps:
            yield from used(inner)
        yield from (source for source in block.outputs if isinstance(source, str))


def lifetimes(
    steps: tuple[Step, ...], inputs: tuple[str, ...], outputs: tuple[Source, ...]
) -> tuple[tuple[str, ...], ...]:
    """Per step, which of this block's own values end with it."""
    own = {*inputs, *(slot.name for step in steps for slot in step.outputs)}
    needed = {source for source in outputs if isinstance(source, str)}
    frees: list[tuple[str, ...]] = []
    for step in reversed(steps):
        touched = dict.fromkeys((*used(step), *(slot.name for slot in step.outputs)))
        ending = tuple(name for name in touched if name in own and name not in needed)
        needed.update(ending)
        frees.append(ending)
    return tuple(reversed(frees))
