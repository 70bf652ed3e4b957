"""What the stages of a bundle's build cost, from the store that it was built with."""

from pathlib import Path

from fastvlm_compile.bundle.annotations import manifest_as_built
from fastvlm_compile.key import Ingredients
from fastvlm_compile.latest import Published, load_record
from fastvlm_compile.report.page_data import StageLine, Stages
from fastvlm_compile.store import Store
from fastvlm_compile.store_entry import EntryManifest


def stages_of(bundle: Path, name: str, store: Store) -> Stages:
    """The stages of the latest build, if it is the one that made this bundle.

    Reads every byte of the bundle where the store knows a recipe of its name. Writes nothing.

    Args:
        bundle: its folder.
        name: of the bundle and its recipe.
        store: may not be there.

    Raises:
        StoreError: the store's record of this build is damaged.
    """
    # The name comes out of a file: it must not lead elsewhere.
    known = Path(name).name == name and (store.root / "latest" / f"{name}.json").is_file()
    record = load_record(store, name) if known else None
    if record is None or record.published is None:
        return Stages(lines=(), reason="not recorded: the store here knows no build of it")
    if not _is_same(bundle, record.published, store):
        reason = "not recorded: the latest build in the store here made another bundle"
        return Stages(lines=(), reason=reason)
    lines = [
        _line(ingredients, store, from_store=record.restored.get(name))
        for name, ingredients in record.stages.items()
    ]
    return Stages(lines=tuple(sorted(lines, key=_longest_first)), reason="")


def _is_same(bundle: Path, published: Published, store: Store) -> bool:
    if published.manifest:
        return published.manifest == manifest_as_built(bundle)
    return published.digest == store.outside_tree(bundle, hidden=True).digest


def _line(ingredients: Ingredients, store: Store, *, from_store: bool | None) -> StageLine:
    found = store.manifest(ingredients.key)
    if not isinstance(found, EntryManifest):
        return StageLine(
            stage=ingredients.stage,
            duration_s=None,
            peak_memory_bytes=None,
            size_bytes=None,
            from_store=from_store,
        )
    return StageLine(
        stage=ingredients.stage,
        duration_s=found.duration_s,
        peak_memory_bytes=found.peak_memory_bytes,
        size_bytes=sum(file.size_bytes for file in found.files),
        from_store=from_store,
    )


def _longest_first(line: StageLine) -> tuple[float, str]:
    return -(line.duration_s or 0.0), line.stage
