"""Faults of the wiring: an op takes the last earlier value of the same type, not its own input."""

from collections.abc import Callable, Iterator

from validation.kill_matrix.draft import Draft, Site, argument, set_argument
from validation.kill_matrix.faults_ops import at
from validation.kill_matrix.mutation import Mutation

WRITTEN_VALUE = "value written instead of the state read back"


def wiring_faults(draft: Draft, file: str) -> Iterator[Mutation]:
    """Of every op that the network is made of."""
    for function in draft.functions:
        seen: dict[str, list[str]] = {}
        read: set[str] = set()
        written: set[str] = set()
        for op in draft.block(function).operations:
            if op.type in ("linear", "conv", "gelu", "silu", "layer_norm", "slice_by_index"):
                site = Site(function=function, op=op)
                own = argument(site, "x")
                others = next((names for names in seen.values() if own in names), [])
                earlier = [name for name in others if name != own]
                if earlier:
                    kind = "stale input"
                    if own in read and earlier[-1] in written:
                        kind = WRITTEN_VALUE
                    what = f"{own} -> {earlier[-1]}"
                    yield at(site, file, kind, what, _taking(earlier[-1]))
            read.update(output.name for output in op.outputs if op.type == "read_state")
            if op.type == "write_state":
                written.add(op.inputs["data"].arguments[0].name)
            for output in op.outputs if op.type != "const" else ():
                seen.setdefault(str(output.type), []).append(output.name)


def _taking(name: str) -> Callable[[Draft, Site], None]:
    def change(_: Draft, site: Site) -> None:
        set_argument(site, "x", name)

    return change
