"""A latency run goes into the bundle that it measured: samples in a report, medians in the card."""

from dataclasses import replace
from pathlib import Path

import pytest
from bundle_folders import content_of

from fastvlm_compile.bundle.annotations import digest_of_rest, manifest_as_built
from fastvlm_compile.bundle.assemble import BundlePlan, assemble
from fastvlm_compile.bundle.consumers import annotate_consumers
from fastvlm_compile.bundle.latency_record import record_latency
from fastvlm_compile.bundle.manifest import read_manifest
from fastvlm_compile.bundle.times import LATENCY_FILE
from fastvlm_compile.bundle.verify import verify_bundle
from fastvlm_compile.errors import BundleError, VerificationError
from validation.consumers.outcome import Outcome
from validation.latency.environment import Environment
from validation.latency.samples import (
    Conditions,
    LatencyRun,
    Phase,
    Settings,
    VariantRun,
    read_run,
)

AGREED = Outcome(
    consumer="onnxruntime", version="1.31.1", variant="onnx.fp32", status="agreed", detail="5 of 5"
)


def _variant(runtime: str, variant: str, **medians_s: float) -> VariantRun:
    phases = tuple(
        Phase(name=name, blocks=((0.9 * s, s, 2 * s),), num_items=1, item="", work=None)
        for name, s in medians_s.items()
    )
    return VariantRun(
        runtime=runtime,
        variant=variant,
        executor=runtime,
        status="measured",
        reason="",
        phases=phases,
        peak_memory_bytes=(1,),
        notes=(),
    )


def _run(bundle: Path) -> LatencyRun:
    return LatencyRun(
        bundle="sample",
        bundle_digest=digest_of_rest(read_manifest(bundle)),
        started_at="2026-01-31T12:00:00Z",
        settings=Settings(threads=2, prompt_lengths=(64,), min_seconds=2.0, min_runs=10),
        environment=Environment(
            processor="a processor",
            num_cores=4,
            threads=2,
            governor="performance",
            memory_bytes=8 << 30,
            system="Linux 6.1.0 x86_64",
            python="3.11.9",
            versions={},
        ),
        conditions=Conditions(load_before=0.1, others_during=0.05),
        roofline=None,
        variants=(
            _variant("onnxruntime", "fp32", time_to_first_token=0.5, decode=0.025),
            _variant("coreml", "float16 cpu_only", decode=0.05),
            _variant("coreml", "float16 cpu_and_ne", decode=0.01),
            _variant("torch", "fp32", decode=0.1),
        ),
    )


@pytest.fixture
def bundle(plan: BundlePlan, tmp_path: Path) -> Path:
    return assemble(plan, tmp_path / "dist" / "sample")


def _rows(bundle: Path) -> dict[str, list[str]]:
    """Variant -> cells of the card's table."""
    lines = (bundle / "README.md").read_text().splitlines()
    rows = [[cell.strip() for cell in line.split(" | ")] for line in lines if line.startswith("| ")]
    return {row[1]: row for row in rows}


def test_medians_stand_beside_their_variants_and_say_where_they_come_from(bundle: Path) -> None:
    assert "tokens per s" not in (bundle / "README.md").read_text()
    run = _run(bundle)
    record_latency(bundle, run, private_paths=())
    assert verify_bundle(bundle).ok
    assert read_run(bundle / LATENCY_FILE) == run
    rows = _rows(bundle)
    assert rows["variant"][-3:-1] == ["first token", "tokens per s"]
    assert rows["fp32"][-3:-1] == ["500 ms", "40"]
    assert rows["float16"][-3:-1] == ["-<br>-", "20 (cpu_only)<br>100 (cpu_and_ne)"]
    assert "a processor, 4 cores, 2 threads." in (bundle / "README.md").read_text()


def test_the_rest_stays_as_it_was_built_and_a_second_run_takes_the_place_of_the_first(
    bundle: Path,
) -> None:
    before, as_built = content_of(bundle), manifest_as_built(bundle)
    record_latency(bundle, _run(bundle), private_paths=())
    once = content_of(bundle)
    changed = {path for path in once if once[path] != before.get(path)}
    assert changed == {"README.md", "manifest.json", LATENCY_FILE}
    assert manifest_as_built(bundle) == as_built
    record_latency(bundle, _run(bundle), private_paths=())
    assert content_of(bundle) == once


def test_what_consumers_made_of_it_and_its_times_do_not_displace_each_other(bundle: Path) -> None:
    annotate_consumers(bundle, [AGREED], private_paths=())
    record_latency(bundle, _run(bundle), private_paths=())
    assert read_manifest(bundle).consumers == (AGREED,)
    both = content_of(bundle)
    annotate_consumers(bundle, [AGREED], private_paths=())
    assert content_of(bundle) == both
    assert verify_bundle(bundle).ok


def test_samples_of_another_build_and_a_changed_bundle_are_refused(bundle: Path) -> None:
    other = replace(_run(bundle), bundle_digest="0" * 64)
    with pytest.raises(BundleError, match="built again meanwhile"):
        record_latency(bundle, other, private_paths=())
    run = _run(bundle)
    (bundle / "config.json").write_text("{}")
    before = content_of(bundle)
    with pytest.raises(VerificationError, match=r"config\.json"):
        record_latency(bundle, run, private_paths=())
    assert content_of(bundle) == before
