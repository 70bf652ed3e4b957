"""A latency run kept in the bundle that it measured: samples in a report, medians in the card."""

from collections.abc import Iterable
from pathlib import Path

from fastvlm_compile.bundle.annotations import annotate, digest_of_rest
from fastvlm_compile.bundle.manifest import Manifest, read_manifest
from fastvlm_compile.bundle.times import LATENCY_FILE
from fastvlm_compile.bundle.verify import refuse_damaged
from fastvlm_compile.errors import BundleError
from validation.latency.samples import LatencyRun, render_run


def record_latency(bundle: Path, run: LatencyRun, *, private_paths: Iterable[Path]) -> Manifest:
    """Writes a run into a bundle, in the place of an earlier one.

    Args:
        bundle: the whole bundle that was measured.
        run: its samples.
        private_paths: folders of this machine that the samples may not name.

    Returns:
        The new manifest.

    Raises:
        VerificationError: the bundle is not as built.
        BundleError: it is another one than was measured.
        OutputError: it cannot be written.
    """
    refuse_damaged(bundle)
    manifest = read_manifest(bundle)
    if run.bundle_digest != digest_of_rest(manifest):
        raise BundleError(f"{bundle}: it was built again meanwhile", hint="run this once more")
    return annotate(
        bundle,
        {LATENCY_FILE: render_run(run).encode()},
        consumers=manifest.consumers,
        private_paths=private_paths,
    )
