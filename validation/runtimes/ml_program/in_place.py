"""Which `slice_update` steps may overwrite their input instead of copying it.

A decoder writes one row of its cache per layer and token; copying the whole cache for it costs
more than the rest of the step. Overwriting is safe when nobody else can see the memory: the
input, and everything that may share memory with it, ends at this step, and a state that holds it
is written before it is read again.
"""

from dataclasses import dataclass, field, replace

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
    nested,
    used,
)

_KIND = "slice_update"
# Memory of constants and arguments: never to be overwritten.
_FOREIGN = -1


def mark_in_place(block: BlockPlan) -> BlockPlan:
    """The block with `in_place` set, and `copies` of states cleared, where it is safe."""
    if any(_touches_states(inner) for step in block.steps for inner in nested(step)):
        return block
    tracker = _Tracker(block=block)
    steps = tuple(tracker.visit(index, step) for index, step in enumerate(block.steps))
    return replace(block, steps=steps)


def _touches_states(block: BlockPlan) -> bool:
    return any(
        isinstance(step, ReadState | WriteState) or any(map(_touches_states, nested(step)))
        for step in block.steps
    )


@dataclass(kw_only=True)
class _Tracker:
    """Which pieces of memory each value and each state may share, step after step."""

    block: BlockPlan
    values: dict[str, frozenset[int]] = field(default_factory=dict)
    states: dict[str, frozenset[int]] = field(default_factory=dict)
    pieces: int = 0

    def __post_init__(self) -> None:
        self.last_use: dict[str, int] = {}
        for index, step in enumerate(self.block.steps):
            for name in used(step):
                self.last_use[name] = index
        for source in self.block.outputs:
            if isinstance(source, str):
                self.last_use[source] = len(self.block.steps)

    def visit(self, index: int, step: Step) -> Step:
        """Record what the step does; the step itself, marked if it may work in place."""
        match step:
            case ReadState():
                self._define(step.outputs, self._state(step.state))
            case WriteState():
                return self._write(step)
            case Branch() | Loop():
                shared = frozenset().union(*(self._memory(name) for name in used(step)))
                self._define(step.outputs, shared | self._fresh())
            case Compute():
                return self._compute(index, step)
        return step

    def _compute(self, index: int, step: Compute) -> Compute:
        sources = dict(step.sources)
        if step.operation.kind == _KIND and self._safe(index, sources):
            self._define(step.outputs, self._memory(sources["x"][0]))
            return replace(step, in_place=True)
        if step.operation.kind == _KIND or not step.aliases:
            self._define(step.outputs, self._fresh())
        else:
            given = [source for name in step.aliases for source in sources.get(name, ())]
            self._define(step.outputs, frozenset().union(*map(self._memory, given)))
        return step

    def _write(self, step: WriteState) -> WriteState:
        """A state must own its memory when the next run begins."""
        memory = self._memory(step.data)
        others = [held for state, held in self.states.items() if state != step.state]
        copies = _FOREIGN in memory or any(held & memory for held in others)
        self.states[step.state] = self._fresh() if copies else memory
        return replace(step, copies=copies)

    def _safe(self, index: int, sources: dict[str, tuple[Source, ...]]) -> bool:
        memory = self._memory(sources["x"][0])
        if len(memory) != 1 or _FOREIGN in memory or memory & self._memory(sources["update"][0]):
            return False
        sharing = [name for name, held in self.values.items() if held & memory]
        if any(self.last_use.get(name, -1) > index for name in sharing):
            return False
        holders = [state for state, held in self.states.items() if held & memory]
        return all(self._is_written_next(index, state) for state in holders)

    def _is_written_next(self, index: int, state: str) -> bool:
        """Whether the content that `state` has at step `index` is never seen again."""
        for step in self.block.steps[index + 1 :]:
            if isinstance(step, ReadState | WriteState) and step.state == state:
                return isinstance(step, WriteState)
        return False

    def _memory(self, source: Source) -> frozenset[int]:
        if isinstance(source, str):
            return self.values.get(source, frozenset((_FOREIGN,)))
        return frozenset((_FOREIGN,))

    def _state(self, name: str) -> frozenset[int]:
        if name not in self.states:
            self.states[name] = self._fresh()
        return self.states[name]

    def _fresh(self) -> frozenset[int]:
        self.pieces += 1
        return frozenset((self.pieces,))

    def _define(self, outputs: tuple[Slot, ...], memory: frozenset[int]) -> None:
        for slot in outputs:
            self.values[slot.name] = memory
