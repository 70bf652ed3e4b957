"""What consumers made of a bundle goes into it in one step, and the rest stays as it was built."""

import itertools
import json
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from bundle_folders import content_of, names_in

from fastvlm_compile.bundle.annotations import (
    CONSUMERS_FILE,
    NOT_YET,
    manifest_as_built,
    no_outcomes,
)
from fastvlm_compile.bundle.assemble import BundlePlan, Part, assemble
from fastvlm_compile.bundle.consumer_checks import check_consumers
from fastvlm_compile.bundle.consumers import annotate_consumers, merged
from fastvlm_compile.bundle.manifest import read_manifest
from fastvlm_compile.bundle.verify import verify_bundle
from fastvlm_compile.durable import Disk
from fastvlm_compile.errors import BundleError, VerificationError
from fastvlm_compile.progress import silent
from fastvlm_compile.publish import Publication, publish
from fastvlm_compile.store import Store
from validation.consumers.outcome import Environment, Outcome
from validation.consumers.registry import CONSUMERS

AGREED = Outcome(
    consumer="onnxruntime",
    version="1.31.1",
    variant="onnx.fp32",
    status="agreed",
    detail="5 of 5 answers | token for token",
)


@dataclass(frozen=True)
class StubConsumer:
    """A consumer that says what it is told to."""

    outcomes: Sequence[Outcome]
    mischief: str = ""
    name: str = "onnxruntime"

    def load(self):
        return self._check

    def _check(self, bundle: Path, environment: Environment) -> tuple[Outcome, ...]:
        if self.mischief:
            (bundle / self.mischief).write_text("left behind")
        return tuple(self.outcomes)


@pytest.fixture
def bundle(plan: BundlePlan, built: Path, tmp_path: Path) -> Path:
    (built / "goldens").mkdir()
    (built / "goldens/goldens.json").write_text("{}")
    goldens = Part(path="goldens", source=built / "goldens")
    plan = replace(plan, parts=(*plan.parts, goldens))
    return assemble(plan, tmp_path / "dist" / "sample")


def _check(bundle: Path, *stubs: StubConsumer):
    return check_consumers(
        bundle,
        stubs,
        Environment(root=bundle.parent / "consumers"),
        progress=silent,
        told=lambda consumer, outcomes: None,
        private_paths=(),
    )


def test_a_bundle_fresh_from_the_build_has_every_consumer_not_run(bundle: Path) -> None:
    manifest = read_manifest(bundle)
    assert [row.consumer for row in manifest.consumers] == [each.name for each in CONSUMERS]
    assert {(row.status, row.detail) for row in manifest.consumers} == {("not_run", NOT_YET)}
    card = (bundle / "README.md").read_text()
    assert f"| onnxruntime | - | - | not run | {NOT_YET} |" in card
    assert not (bundle / CONSUMERS_FILE).exists()


def test_an_outcome_is_told_in_the_report_the_manifest_and_the_card(bundle: Path) -> None:
    before = content_of(bundle)
    manifest = _check(bundle, StubConsumer([AGREED]))
    assert manifest == read_manifest(bundle)
    assert manifest.consumers[0] == AGREED
    report = json.loads((bundle / CONSUMERS_FILE).read_text())
    assert report["outcomes"][0]["status"] == "agreed"
    row = "| onnxruntime | 1.31.1 | onnx.fp32 | loaded and agreed | 5 of 5 answers \\| token for "
    assert row in (bundle / "README.md").read_text()
    after = content_of(bundle)
    changed = {name for name in after if after[name] != before.get(name)}
    assert changed == {"README.md", "manifest.json", CONSUMERS_FILE}
    assert verify_bundle(bundle).ok
    assert names_in(bundle.parent) == ["sample"]


def test_outcomes_of_consumers_that_are_not_run_again_are_kept(bundle: Path) -> None:
    _check(bundle, StubConsumer([AGREED]))
    other = replace(AGREED, consumer="mlx-vlm", variant="mlx.fp16", status="disagreed")
    rows = _check(bundle, StubConsumer([other], name="mlx-vlm")).consumers
    assert AGREED in rows
    assert other in rows
    again = replace(AGREED, detail="another")
    rows = _check(bundle, StubConsumer([again])).consumers
    assert [row for row in rows if row.consumer == "onnxruntime"] == [again]
    assert other in rows


def test_a_consumer_that_finds_nothing_for_it_was_not_run(bundle: Path) -> None:
    rows = _check(bundle, StubConsumer([])).consumers
    assert (rows[0].status, rows[0].detail) == ("not_run", "the bundle holds nothing for it")


def test_outcomes_of_another_content_are_not_kept(bundle: Path) -> None:
    manifest = annotate_consumers(
        bundle, merged(bundle, read_manifest(bundle), [AGREED]), private_paths=()
    )
    assert AGREED in merged(bundle, manifest, [])
    first, *rest = manifest.files
    others = replace(manifest, files=(*rest, replace(first, path="x", sha256="0" * 64)))
    assert merged(bundle, others, []) == no_outcomes()


def _dies_at(step: int, work: Callable[[Disk], object]) -> bool:
    """Whether `work`, killed at its n-th durable step, was killed before its end."""
    left = iter(range(step))

    def count(what: str) -> None:
        if next(left, None) is None:
            os._exit(9)

    child = os.fork()
    if child == 0:
        try:
            work(Disk(step=count))
        except BaseException:  # noqa: BLE001 - nothing may escape into pytest's copy
            os._exit(1)
        os._exit(0)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert code in (0, 9)
    return code == 9


def test_killed_at_any_step_there_is_the_old_bundle_or_the_new_one(bundle: Path) -> None:
    seen: set[bool] = set()
    for step in itertools.count():
        outcome = replace(AGREED, detail=f"killed at step {step}")

        def work(disk: Disk, outcome: Outcome = outcome) -> None:
            annotate_consumers(bundle, [outcome], private_paths=(), disk=disk)

        killed = _dies_at(step, work)
        assert verify_bundle(bundle).ok
        seen.add(outcome in read_manifest(bundle).consumers)
        if not killed:
            break
    assert seen == {True, False}
    annotate_consumers(bundle, [AGREED], private_paths=())
    assert names_in(bundle.parent) == ["sample"]


def test_a_damaged_bundle_is_not_tried(bundle: Path) -> None:
    (bundle / "config.json").write_text("{}")
    with pytest.raises(VerificationError, match=r"not as it was built: changed: config\.json"):
        _check(bundle, StubConsumer([AGREED]))


def test_a_consumer_that_leaves_something_in_the_bundle_is_refused(bundle: Path) -> None:
    before = content_of(bundle)
    with pytest.raises(VerificationError, match=r"any more.*added: cache\.bin"):
        _check(bundle, StubConsumer([AGREED], mischief="cache.bin"))
    (bundle / "cache.bin").unlink()
    assert content_of(bundle) == before


def test_a_bundle_without_goldens_has_nothing_to_compare_with(
    plan: BundlePlan, tmp_path: Path
) -> None:
    with pytest.raises(BundleError, match="without goldens"):
        _check(assemble(plan, tmp_path / "sample"), StubConsumer([AGREED]))


def test_no_outcome_tells_where_the_machine_keeps_its_files(bundle: Path) -> None:
    crash = replace(AGREED, status="disagreed", detail=f"cannot open {bundle}/onnx:\n  no file")
    rows = _check(bundle, StubConsumer([crash])).consumers
    assert rows[0].detail == "cannot open sample/onnx: no file"
    with pytest.raises(BundleError, match="a path of this machine"):
        annotate_consumers(bundle, [crash], private_paths=[bundle])


def test_the_build_knows_its_bundle_again_after_consumers_were_told_in_it(
    bundle: Path, plan: BundlePlan
) -> None:
    as_built = manifest_as_built(bundle)
    assert as_built
    _check(bundle, StubConsumer([AGREED]))
    assert manifest_as_built(bundle) == as_built
    (bundle / "config.json").write_text("{}")
    assert manifest_as_built(bundle) == ""
    assert manifest_as_built(bundle.parent) == ""


def test_a_second_build_keeps_what_consumers_made_of_an_otherwise_identical_bundle(
    plan: BundlePlan, built: Path, tmp_path: Path
) -> None:
    store = Store(root=tmp_path / "state")
    store.open()
    out = tmp_path / "dist" / "sample"
    publication = Publication(recipe="sample", folder=out, key="1", as_built=manifest_as_built)

    def put_in_place() -> None:
        assemble(plan, out)

    assert publish(publication, put_in_place, store) == "published"
    annotate_consumers(out, [AGREED], private_paths=())
    annotated = content_of(out)
    for _ in range(2):
        assert publish(publication, put_in_place, store) == "up to date"
        assert content_of(out) == annotated
    (out / "config.json").write_text("{}")
    assert publish(publication, put_in_place, store) == "published"
    assert read_manifest(out).consumers == no_outcomes()
    annotate_consumers(out, [AGREED], private_paths=())
    assert publish(replace(publication, key="2"), put_in_place, store) == "published"
    assert read_manifest(out).consumers == no_outcomes()
