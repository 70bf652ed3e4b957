"""A bundle in the hands of its consumers, one after another."""

import tempfile
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path

from fastvlm_compile.bundle.consumers import annotate_consumers, merged
from fastvlm_compile.bundle.layout import GOLDENS
from fastvlm_compile.bundle.manifest import MANIFEST_NAME, Manifest, read_manifest
from fastvlm_compile.bundle.verify import refuse_damaged
from fastvlm_compile.errors import BundleError
from fastvlm_compile.progress import Progress
from validation.consumers.outcome import Environment, Outcome, not_run
from validation.consumers.registry import Consumer

Told = Callable[[Consumer, Sequence[Outcome]], None]


def check_consumers(
    bundle: Path,
    consumers: Sequence[Consumer],
    environment: Environment,
    *,
    progress: Progress,
    told: Told,
    private_paths: Iterable[Path],
) -> Manifest:
    """Has each consumer load the bundle, and writes into it what became of that.

    Args:
        bundle: a whole bundle with goldens.
        consumers: rows of the registry.
        environment: where they are installed.
        progress: told before each one.
        told: called after each one with its outcomes.
        private_paths: folders of this machine; where a consumer's words name one, its own name
            alone is kept.

    Returns:
        The new manifest, with outcomes of all consumers.

    Raises:
        VerificationError: the bundle is not as built, before or after.
        BundleError: it has no goldens, or another one took its place meanwhile.
        GoldenError: its goldens are damaged.
        OutputError: it cannot be written.
    """
    refuse_damaged(bundle)
    before = (bundle / MANIFEST_NAME).read_bytes()
    if not (bundle / GOLDENS).is_dir():
        raise BundleError(
            f"{bundle}: built without goldens, so there is nothing to compare with",
            hint="build it with `ship: true` in the recipe's goldens",
        )
    private = (*private_paths, environment.root, bundle, Path(tempfile.gettempdir()))
    found: list[Outcome] = []
    for index, consumer in enumerate(consumers):
        progress(index, len(consumers), consumer.name)
        checked = consumer.load()(bundle, environment)
        rows = tuple(
            replace(row, detail=_without_folders(row.detail, private))
            for row in checked or not_run(consumer.name, [""], "the bundle holds nothing for it")
        )
        assert all(row.consumer == consumer.name for row in rows), rows
        told(consumer, rows)
        found += rows
    if (bundle / MANIFEST_NAME).read_bytes() != before:
        raise BundleError(f"{bundle}: it was built again meanwhile", hint="run this once more")
    refuse_damaged(bundle, since=" any more, now that consumers had it")
    outcomes = merged(bundle, read_manifest(bundle), found)
    return annotate_consumers(bundle, outcomes, private_paths=private)


def _without_folders(text: str, folders: Iterable[Path]) -> str:
    """A consumer's last words may name files; where they lie is nobody's business."""
    spelled = {str(each) for folder in folders for each in (folder.absolute(), folder.resolve())}
    for folder in sorted(spelled, key=len, reverse=True):
        if folder != "/":
            text = text.replace(folder, Path(folder).name)
    return " ".join(text.split())
