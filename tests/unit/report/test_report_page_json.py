"""The JSON of a report keeps its published schema, and a bad bundle is told as what it is."""

import json
from dataclasses import replace
from importlib.resources import files
from pathlib import Path

import pytest
from jsonschema import Draft202012Validator, ValidationError
from report_bundle import GATES, HOSTILE, make_bundle, samples, write_bundle

from fastvlm_compile.bundle.manifest import render, self_digest
from fastvlm_compile.cli import run
from fastvlm_compile.report.json_schema import schema_of
from fastvlm_compile.report.page_data import SCHEMA, ReportData
from validation.latency.samples import render_run

Capture = pytest.CaptureFixture[str]


def _schema() -> dict[str, object]:
    text = files("fastvlm_compile.report").joinpath("schema.json").read_text(encoding="utf-8")
    schema: dict[str, object] = json.loads(text)
    return schema


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No store in the working folder, and none is made."""
    monkeypatch.chdir(tmp_path)


def _printed(bundle: Path, capsys: Capture, *options: object) -> dict[str, object]:
    assert run(["report", str(bundle), *map(str, options), "--json"]) == 0
    document: dict[str, object] = json.loads(capsys.readouterr().out)
    return document


def test_the_published_schema_is_that_of_the_code() -> None:
    assert _schema() == schema_of(ReportData, name="fastvlm-compile:report", schema=SCHEMA)
    Draft202012Validator.check_schema(_schema())


@pytest.mark.parametrize("words", ["plain words", HOSTILE])
def test_the_json_keeps_the_schema(words: str, tmp_path: Path, capsys: Capture) -> None:
    bundle = make_bundle(tmp_path / "bundle", words=words)
    times = tmp_path / "times.json"
    times.write_text(render_run(samples(words=words)), encoding="utf-8")
    for options in ((), ("--latency", times)):
        document = _printed(bundle, capsys, *options)
        Draft202012Validator(_schema()).validate(document)
        assert (document["latency"] is None) == (not options)
    assert not list(tmp_path.glob("*.html"))


def test_the_schema_refuses_what_is_not_a_report(tmp_path: Path, capsys: Capture) -> None:
    document = _printed(make_bundle(tmp_path / "bundle"), capsys)
    for wrong in ({"schema": 2}, {"name": 5}, {"further": 1}, {"gates": [{}]}):
        with pytest.raises(ValidationError):
            Draft202012Validator(_schema()).validate({**document, **wrong})


def test_numbers_without_a_spelling_in_json_are_words(tmp_path: Path, capsys: Capture) -> None:
    gates = (replace(GATES[0], max=float("inf")),)
    document = _printed(make_bundle(tmp_path / "bundle", gates=gates), capsys)
    Draft202012Validator(_schema()).validate(document)
    rows = document["gates"]
    assert isinstance(rows, list)
    assert rows[0]["threshold"] == "inf"


def test_page_and_json_are_written_where_they_are_asked_for(
    tmp_path: Path, capsys: Capture
) -> None:
    bundle = make_bundle(tmp_path / "bundle")
    assert run(["report", str(bundle)]) == 0
    told = capsys.readouterr()
    assert told.out == "report-bundle.html\n"
    assert "sample: passed: all 2 gates" in told.err
    command = ["report", str(bundle), "--out", "deep/er/page.html", "--json", "data.json"]
    assert run(command) == 0
    assert Path("deep/er/page.html").read_bytes() == Path("report-bundle.html").read_bytes()
    assert json.loads(Path("data.json").read_text())["name"] == "sample"
    assert not Path(".store").exists()


def test_a_report_does_not_go_into_the_bundle(tmp_path: Path, capsys: Capture) -> None:
    bundle = make_bundle(tmp_path / "bundle")
    assert run(["report", str(bundle), "--out", str(bundle / "reports/page.html")]) == 2
    assert "`verify` would call it added" in capsys.readouterr().err
    assert not (bundle / "reports/page.html").exists()


@pytest.mark.parametrize(
    ("parity", "said"),
    [
        (b"{", "not valid JSON"),
        (b"[]", "expected schema 1"),
        (b'{"schema": 1, "measurements": 5, "gates": []}', "measurements: expected a list"),
        (b'{"schema": 1, "gates": []}', "missing measurements"),
        (b'{"schema": 1, "measurements": [{"target": 1}], "gates": []}', "missing variant"),
    ],
)
def test_measurements_of_a_wrong_shape_are_told(
    parity: bytes, said: str, tmp_path: Path, capsys: Capture
) -> None:
    write_bundle(tmp_path / "bundle", parity)
    assert run(["report", str(tmp_path / "bundle")]) == 2
    told = capsys.readouterr().err
    assert f"{tmp_path}/bundle/reports/parity.json: " in told
    assert said in told
    assert "hint: " in told


def test_a_bundle_without_measurements_is_told(tmp_path: Path, capsys: Capture) -> None:
    bundle = make_bundle(tmp_path / "bundle")
    (bundle / "reports/parity.json").unlink()
    assert run(["report", str(bundle)]) == 2
    assert "no reports/parity.json" in capsys.readouterr().err


def test_measurements_that_the_build_did_not_write_are_refused(
    tmp_path: Path, capsys: Capture
) -> None:
    bundle = make_bundle(tmp_path / "bundle")
    path = bundle / "reports/parity.json"
    path.write_text(path.read_text().replace('"failed"', '"passed"') + "\n")
    assert run(["report", str(bundle)]) == 2
    assert "not the file that the build wrote" in capsys.readouterr().err


@pytest.mark.parametrize(
    "wrong",
    [
        {"name": 5},
        {"provenance": {"checkpoint_digest": 1, "source_revision": "", "tools": {}, "recipe": ""}},
        {
            "consumers": [
                {"consumer": "a", "version": "", "variant": "", "status": "?", "detail": ""}
            ]
        },
        {"variants": "none"},
        {"files": [{"path": "a", "size_bytes": "9", "sha256": ""}]},
    ],
)
def test_a_manifest_of_a_wrong_shape_is_told_though_its_digest_is_right(
    wrong: dict[str, object], tmp_path: Path, capsys: Capture
) -> None:
    bundle = make_bundle(tmp_path / "bundle")
    path = bundle / "manifest.json"
    document = {**json.loads(path.read_bytes()), **wrong}
    del document["digest"]
    path.write_bytes(render({**document, "digest": self_digest(document)}))
    assert run(["report", str(bundle)]) == 2
    assert "manifest.json: not a bundle's manifest" in capsys.readouterr().err


def test_a_folder_that_is_no_bundle_is_told(tmp_path: Path, capsys: Capture) -> None:
    assert run(["report", str(tmp_path / "absent")]) == 2
    assert "there is no such bundle" in capsys.readouterr().err


def test_times_of_another_bundle_are_refused(tmp_path: Path, capsys: Capture) -> None:
    bundle = make_bundle(tmp_path / "bundle")
    times = tmp_path / "times.json"
    times.write_text(render_run(samples(bundle="another")), encoding="utf-8")
    assert run(["report", str(bundle), "--latency", str(times)]) == 2
    assert "of the bundle 'another', not of 'sample'" in capsys.readouterr().err
