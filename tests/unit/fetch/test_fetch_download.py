"""A download ends complete, or says why not and keeps what came, whatever the server does."""

import hashlib
import http.server
import json

import pytest
from fetch_server import FILES, RELEASE, left_in, make_archive

from fastvlm_compile.errors import FetchError, OutputError
from fastvlm_compile.fetch import fetch as fetch_module
from fastvlm_compile.fetch import names
from fastvlm_compile.fetch.ledger import read_ledger

PART = f"{RELEASE.folder}.zip.part"


def _content(folder) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_a_checkpoint_arrives_whole_with_a_ledger_beside_it(run_fetch, served, tmp_path) -> None:
    result = run_fetch()
    assert result.ending == "fetched"
    assert _content(tmp_path / "model") == FILES
    assert left_in(tmp_path) == ["model", "model.fetched.json"]
    assert result.ledger == read_ledger(tmp_path / "model")
    assert result.ledger.archive_sha256 == hashlib.sha256(served.content).hexdigest()
    assert result.ledger.archive_bytes == len(served.content)
    assert result.ledger.files["vocab.json"] == hashlib.sha256(b"{}").hexdigest()


def test_a_cut_download_goes_on_from_the_byte_where_it_was_cut(run_fetch, served, tmp_path) -> None:
    served.cut_after = [1000, 0, 5000]
    run_fetch()
    assert served.seen == [None, "bytes=1000-", "bytes=1000-", "bytes=6000-"]
    assert _content(tmp_path / "model") == FILES


def test_the_next_fetch_goes_on_where_one_gave_up(run_fetch, served, tmp_path) -> None:
    served.cut_after = [1000, 0, 0, 0]
    with pytest.raises(FetchError, match=r"closed before the end; 1\.0 kB came") as caught:
        run_fetch()
    assert "goes on from there" in caught.value.hint
    assert left_in(tmp_path) == [PART, f"{PART}.json"]
    run_fetch()
    assert served.seen[-1] == "bytes=1000-"
    assert _content(tmp_path / "model") == FILES


def test_a_server_that_ignores_ranges_is_read_from_the_start(run_fetch, served, tmp_path) -> None:
    served.ranges = False
    served.cut_after = [1000, 2000]
    run_fetch()
    assert served.seen == [None, "bytes=1000-", "bytes=2000-"]
    assert _content(tmp_path / "model") == FILES


def test_a_file_that_changes_between_tries_is_never_mixed(run_fetch, served, tmp_path) -> None:
    other = FILES | {"vocab.json": b'{"a": 1}'}

    def change(num_requests: int) -> None:
        if num_requests == 1:
            served.content, served.etag = make_archive(other), '"two"'

    served.cut_after = [1000]
    served.after_request = change
    run_fetch()
    assert _content(tmp_path / "model") == other


@pytest.mark.parametrize("etag", ["", 'W/"weak"'])
def test_without_a_strong_validator_it_starts_over(run_fetch, served, tmp_path, etag) -> None:
    served.etag = etag
    served.cut_after = [1000]
    run_fetch()
    assert served.seen == [None, None]
    assert _content(tmp_path / "model") == FILES


def test_a_length_that_is_announced_too_long_is_not_believed(run_fetch, served, tmp_path) -> None:
    served.extra_length = 10
    with pytest.raises(FetchError, match="tells two lengths"):
        run_fetch()
    assert len(served.seen) == 10
    assert left_in(tmp_path) == []


def test_a_server_without_ranges_that_always_cuts_is_given_up(run_fetch, served) -> None:
    served.ranges = False
    served.cut_after = [1000] * 100
    with pytest.raises(FetchError, match="closed before the end"):
        run_fetch()
    assert len(served.seen) == 6


def test_a_length_that_is_announced_too_short_is_found_out(run_fetch, served, tmp_path) -> None:
    served.extra_length = -10
    with pytest.raises(FetchError, match="not a whole zip archive"):
        run_fetch()
    assert left_in(tmp_path) == []


def test_a_missing_archive_is_told_at_once(run_fetch, served, tmp_path) -> None:
    served.statuses = [404]
    with pytest.raises(FetchError, match="answers 404 Not Found"):
        run_fetch()
    assert len(served.seen) == 1
    assert left_in(tmp_path) == []


def test_an_error_that_passes_is_waited_for_and_keeps_the_bytes(run_fetch, served) -> None:
    served.statuses = [500, 503]
    served.cut_after = [1000]
    served.after_request = lambda number: served.statuses.append(500) if number == 3 else None
    run_fetch()
    assert served.seen == [None, None, None, "bytes=1000-", "bytes=1000-"]


def test_a_server_that_only_fails_is_given_up(run_fetch, served, tmp_path) -> None:
    served.statuses = [500] * 10
    with pytest.raises(FetchError, match="answers 500"):
        run_fetch()
    assert len(served.seen) == 3
    assert left_in(tmp_path) == []


def test_a_server_that_cuts_after_every_byte_is_given_up(run_fetch, served) -> None:
    served.cut_after = [1] * 100
    with pytest.raises(FetchError, match="40 B came"):
        run_fetch()
    assert len(served.seen) == 40


def test_nobody_at_the_address_is_one_clear_error(run_fetch) -> None:
    with http.server.HTTPServer(("127.0.0.1", 0), http.server.BaseHTTPRequestHandler) as unused:
        port = unused.server_port
    with pytest.raises(FetchError, match="the connection failed"):
        run_fetch(base_url=f"http://127.0.0.1:{port}")


def test_an_archive_beyond_any_release_is_refused(run_fetch, served, tmp_path) -> None:
    served.extra_length = RELEASE.max_bytes
    with pytest.raises(FetchError, match=r"announces 4\.0 GB"):
        run_fetch()
    assert left_in(tmp_path) == []


def test_too_full_a_disk_is_noticed_before_anything_is_written(
    run_fetch, tmp_path, monkeypatch
) -> None:
    usage = type("usage", (), {"free": 1000})
    monkeypatch.setattr(fetch_module.shutil, "disk_usage", lambda _: usage)
    with pytest.raises(OutputError, match=r"are needed .* 1\.0 kB are free"):
        run_fetch()
    assert left_in(tmp_path) == []


def test_lost_or_damaged_notes_start_the_download_over(run_fetch, served, tmp_path) -> None:
    for notes in (None, "nonsense", json.dumps({"url": 1, "size_bytes": 2, "validator": 3})):
        (tmp_path / PART).write_bytes(b"x" * 1000)
        if notes is not None:
            (tmp_path / f"{PART}.json").write_text(notes)
        served.seen.clear()
        run_fetch(replace=True)
        assert served.seen == [None]


@pytest.mark.parametrize(
    "base_url", ["file:///etc", "ftp://a/b", "http://", "https://u:p@h", "http://h/?q", "http://["]
)
def test_an_address_that_is_no_base_is_refused(base_url) -> None:
    with pytest.raises(FetchError, match="not a base address"):
        names.archive_url(RELEASE, base_url)


def test_the_official_addresses_are_those_of_apple() -> None:
    assert list(names.RELEASES) == [
        f"{size}-stage{stage}" for size in ("0.5b", "1.5b", "7b") for stage in (2, 3)
    ]
    assert names.archive_url(names.RELEASES["7b-stage2"], names.BASE_URL) == (
        "https://ml-site.cdn-apple.com/datasets/fastvlm/llava-fastvithd_7b_stage2.zip"
    )
