"""What consumers made of a bundle: a report, the manifest's matrix and a table in the card."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from fastvlm_compile.bundle.annotations import (
    CONSUMERS_FILE,
    annotate,
    digest_of_rest,
    no_outcomes,
)
from fastvlm_compile.bundle.manifest import Manifest, read_manifest
from fastvlm_compile.durable import Disk
from fastvlm_compile.errors import BundleError
from validation.consumers.outcome import Outcome
from validation.consumers.registry import CONSUMERS
from validation.typed_json import read_json, render_json

SCHEMA = 1


@dataclass(frozen=True, kw_only=True)
class ConsumerReport:
    """All of `reports/consumers.json`.

    Attributes:
        bundle: digest of the files that the consumers had, see `digest_of_rest`.
        outcomes: in the registry's order.
    """

    bundle: str
    outcomes: tuple[Outcome, ...]


def merged(bundle: Path, manifest: Manifest, found: Sequence[Outcome]) -> tuple[Outcome, ...]:
    """New outcomes and, of consumers that were not run now, the earlier ones.

    Those are kept only if all other files are still the same.

    Raises:
        UserError: the earlier report is damaged.
    """
    earlier = no_outcomes()
    if (bundle / CONSUMERS_FILE).is_file():
        report = read_json(bundle / CONSUMERS_FILE, ConsumerReport, schema=SCHEMA, error=_damaged)
        if report.bundle == digest_of_rest(manifest):
            earlier = report.outcomes
    run = {outcome.consumer for outcome in found}
    rows = (*found, *(outcome for outcome in earlier if outcome.consumer not in run))
    names = [each.name for each in CONSUMERS]
    known = [outcome for outcome in rows if outcome.consumer in names]
    told = {outcome.consumer for outcome in known}
    missing = (outcome for outcome in no_outcomes() if outcome.consumer not in told)
    return tuple(sorted((*known, *missing), key=lambda row: names.index(row.consumer)))


def annotate_consumers(
    bundle: Path,
    outcomes: Sequence[Outcome],
    *,
    private_paths: Iterable[Path],
    disk: Disk | None = None,
) -> Manifest:
    """Writes outcomes into a bundle; see `annotate`.

    Args:
        bundle: a whole bundle.
        outcomes: the whole matrix, see `merged`.
        private_paths: folders of this machine that no outcome may name.
        disk: what writes; tests give their own.
    """
    report = ConsumerReport(bundle=digest_of_rest(read_manifest(bundle)), outcomes=tuple(outcomes))
    content = render_json(report, schema=SCHEMA).encode()
    return annotate(
        bundle,
        {CONSUMERS_FILE: content},
        consumers=outcomes,
        private_paths=private_paths,
        disk=disk,
    )


def _damaged(what: str) -> BundleError:
    return BundleError(what, hint="build the bundle again, or check all consumers again")
