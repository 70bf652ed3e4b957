"""The machine and the libraries that a latency belongs to; two that differ are not comparable."""

from collections.abc import Mapping
from dataclasses import dataclass

from reference.errors import UserError

NOT_TOLD = "not told"
"""Where the system does not say, as a virtual machine does not of its governor."""


class EnvironmentsDifferError(UserError):
    """Two measurements come from environments that differ."""


@dataclass(frozen=True, kw_only=True)
class Environment:
    """What must be the same for two latencies to be compared. No host name, no path."""

    processor: str
    num_cores: int
    """That the process may run on."""
    threads: int
    """That the runtimes were told to use."""
    governor: str
    """Of the processor's frequency: `performance`, `powersave`, ... or `NOT_TOLD`."""
    memory_bytes: int
    system: str
    """`Linux 6.1.0 x86_64`."""
    python: str
    versions: Mapping[str, str]
    """Distribution -> version, of what computes."""


def differences(base: Environment, new: Environment) -> tuple[str, ...]:
    """What differs, one line each: `threads: 1, then 2`; empty where nothing does."""
    pairs = [
        ("processor", base.processor, new.processor),
        ("cores", base.num_cores, new.num_cores),
        ("threads", base.threads, new.threads),
        ("governor", base.governor, new.governor),
        ("memory", base.memory_bytes, new.memory_bytes),
        ("system", base.system, new.system),
        ("python", base.python, new.python),
    ]
    # A library that one alone names belongs to a runtime that the other did not measure.
    for name in sorted(base.versions.keys() & new.versions.keys()):
        pairs.append((name, base.versions[name], new.versions[name]))
    return tuple(f"{what}: {one}, then {other}" for what, one, other in pairs if one != other)
