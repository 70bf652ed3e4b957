"""What a unit of each feature costs in memory and time, as recorded and fitted: `rates.json`."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

from fastvlm_compile.errors import EstimateError
from fastvlm_compile.estimate.features import FEATURES, Features
from fastvlm_compile.structure import from_plain
from reference.errors import UserError

RATES_FILE = "rates.json"
BASE = "base"
"""What a stage takes however small its model is: its libraries and their start."""


@dataclass(frozen=True, kw_only=True)
class KindRates:
    """Of one kind of stage: cost = base + the sum of rate x feature.

    Attributes:
        memory_gb: 10^9 bytes of peak memory for a unit of each feature.
        time_s: seconds for a unit of each feature.
        recorded: how many outcomes it was fitted to; with 0 it is what the code lets one expect.
    """

    memory_gb: Mapping[str, float]
    time_s: Mapping[str, float]
    recorded: int

    def __post_init__(self) -> None:
        unknown = {*self.memory_gb, *self.time_s} - {BASE, *FEATURES}
        if unknown:
            raise UserError(f"there is no feature {min(unknown)}")


@dataclass(frozen=True, kw_only=True)
class Rates:
    """Everything in `rates.json`.

    Attributes:
        machine: where the outcomes were recorded, in words.
        kinds: by `Job.kind`.
    """

    machine: str
    kinds: Mapping[str, KindRates]


def load_rates(path: Path | None = None) -> Rates:
    """The rates of the package, or of a file that `python -m benchmarks.rates` wrote.

    Raises:
        EstimateError: the file cannot be read.
    """
    source = resources.files("fastvlm_compile.estimate") / RATES_FILE if path is None else path
    try:
        return from_plain(json.loads(source.read_bytes()), Rates)
    except (OSError, ValueError, UserError) as error:
        raise EstimateError(
            f"{source}: these rates cannot be read: {error}",
            hint="record them again: python -m benchmarks.rates",
        ) from error


def cost(rates: Mapping[str, float], features: Features) -> float:
    """Base and rates over features."""
    return sum(
        rate if name == BASE else rate * getattr(features, name) for name, rate in rates.items()
    )
