"""What a session is going to measure, known before it does."""

from collections.abc import Sequence
from pathlib import Path

from fastvlm_compile.bundle.manifest import read_manifest
from fastvlm_compile.errors import BundleError
from fastvlm_compile.latency.inputs import inputs_of
from fastvlm_compile.latency.measure import Order, jobs_of, why_not
from fastvlm_compile.latency.phases import phase_names
from validation.latency.thresholds import Place


def planned(bundles: Sequence[Path], order: Order) -> tuple[Place, ...]:
    """Every phase of every variant that all bundles have and that can be tried here.

    Raises:
        BundleError: a bundle is damaged, has no such variant, or there is nothing to measure.
        UserError: its config or its tokenizer is damaged.
    """
    each = [_places(bundle, order) for bundle in bundles]
    found = tuple(place for place in each[0] if all(place in places for places in each))
    if not found:
        names = " and ".join(str(bundle) for bundle in bundles)
        raise BundleError(
            f"{names}: no variant that both have can be measured here",
            hint="name another --runtime, or build the same variants of both",
        )
    return found


def _places(bundle: Path, order: Order) -> tuple[Place, ...]:
    manifest = read_manifest(bundle)
    names = phase_names(inputs_of(bundle, manifest.contract), order.settings)
    return tuple(
        (f"{job.runtime}/{job.label}", name)
        for job in jobs_of(bundle, manifest, order)
        if not why_not(job)
        for name in names
    )
