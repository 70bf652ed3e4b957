"""A hostile or damaged archive is refused as a whole; nothing of it reaches the disk."""

import io
import random
import stat
import struct
import warnings
import zipfile
from pathlib import PurePosixPath

import pytest
from fetch_server import FILES, left_in, make_archive

from fastvlm_compile.errors import FetchError
from fastvlm_compile.fetch.archive import ArchiveLimits, plan_extraction
from fastvlm_compile.fetch.extract import extract, opened_archive
from fastvlm_compile.progress import silent

LIMITS = ArchiveLimits(max_bytes=10_000_000)


def _zip(*entries: tuple[str | zipfile.ZipInfo, bytes], method: int = zipfile.ZIP_STORED) -> bytes:
    """An archive of a good config.json and these entries."""
    buffer = io.BytesIO()
    with warnings.catch_warnings(), zipfile.ZipFile(buffer, "w", method) as archive:
        warnings.simplefilter("ignore")  # duplicate names are meant here
        archive.writestr("config.json", b"{}")
        for entry, data in entries:
            archive.writestr(entry, data, method)
    return buffer.getvalue()


def _entry(name: str, *, mode: int = 0) -> zipfile.ZipInfo:
    info = zipfile.ZipInfo("placeholder")
    info.filename = name  # the constructor would mend it
    info.external_attr = mode << 16
    return info


def _patched(data: bytes, offset: int, value: int) -> bytes:
    """Sets two bytes in the last entry of the central directory."""
    start = data.rindex(b"PK\x01\x02") + offset
    return data[:start] + struct.pack("<H", value) + data[start + 2 :]


HOSTILE = {
    "absolute path": (_zip((_entry("/etc/evil"), b"x")), "absolute path"),
    "parent folder": (_zip((_entry("../evil"), b"x")), "leads out"),
    "hidden parent": (_zip((_entry("a/../../evil"), b"x")), "leads out"),
    "empty part": (_zip((_entry("a//evil"), b"x")), "leads out"),
    "current folder": (_zip((_entry("./config.json"), b"x")), "leads out"),
    "backslash": (_zip((_entry("..\\evil"), b"x")), "absolute path"),
    "drive": (_zip((_entry("C:evil"), b"x")), "absolute path"),
    "NUL": (_zip((_entry("a\0b"), b"x")), "control characters"),
    "right-to-left mark": (_zip((_entry("a\u202eb"), b"x")), "control characters"),
    "long name": (_zip((_entry("a" * 300), b"x")), "too long"),
    "symbolic link": (_zip((_entry("link", mode=stat.S_IFLNK | 0o777), b"/etc")), "symbolic link"),
    "device": (_zip((_entry("dev", mode=stat.S_IFCHR | 0o666), b"")), "no file and no folder"),
    "pipe": (_zip((_entry("pipe", mode=stat.S_IFIFO | 0o666), b"")), "no file and no folder"),
    "folder as file": (_zip((_entry("a", mode=stat.S_IFDIR), b"")), "both a file and a folder"),
    "same name": (_zip(("a.json", b"1"), ("a.json", b"2")), "are one name"),
    "same but for case": (_zip(("a.json", b"1"), ("A.JSON", b"2")), "are one name"),
    "same but for form": (_zip(("\u00e9", b"1"), ("e\u0301", b"2")), "are one name"),
    "file and folder": (_zip(("a", b"1"), ("A/b", b"2")), "both a file and a folder"),
    "bomb": (_zip(("zeros", bytes(9_000_000)), method=zipfile.ZIP_DEFLATED), "unpacks to 9000000"),
    "many entries": (_zip(*((f"f{i}", b"") for i in range(2000))), "2001 entries"),
    "encrypted": (_patched(_zip(("a", b"x")), 8, 1), "is encrypted"),
    "method": (_zip(("a", b"x"), method=zipfile.ZIP_LZMA), "packed with method 14"),
    "no checkpoint": (make_archive({"readme": b"x"}), "holds no checkpoint"),
    "nothing": (make_archive()[:0] + b"PK\x05\x06" + bytes(18), "holds no checkpoint"),
    "cut off": (make_archive()[:-30], "not a whole zip archive"),
    "no zip": (b"<html>not found</html>", "not a whole zip archive"),
    "wrong checksum": (make_archive().replace(bytes(range(256)), bytes(256), 1), "not a whole zip"),
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_a_hostile_or_damaged_archive_leaves_nothing(run_fetch, served, tmp_path, kind) -> None:
    served.content, message = HOSTILE[kind]
    with pytest.raises(FetchError, match=message) as caught:
        run_fetch()
    assert "was removed" in caught.value.hint
    assert left_in(tmp_path) == []
    assert not (tmp_path.parent / "evil").exists()


def test_many_bytes_are_refused_though_no_entry_has_too_many(tmp_path) -> None:
    (tmp_path / "a.zip").write_bytes(_zip(("a", bytes(6_000_000)), ("b", bytes(6_000_000))))
    with (
        opened_archive(tmp_path / "a.zip") as archive,
        pytest.raises(FetchError, match="unpacks to 12000002 bytes, the most is 10000000"),
    ):
        plan_extraction(archive, LIMITS)


def test_entries_that_share_their_bytes_are_refused(tmp_path) -> None:
    data = _zip(("first", b"x" * 1000), ("second", b"x" * 1000))
    places = [i for i in range(len(data)) if data.startswith(b"PK\x01\x02", i)]
    offset = data[places[1] + 42 : places[1] + 46]
    data = data[: places[2] + 42] + offset + data[places[2] + 46 :]
    (tmp_path / "a.zip").write_bytes(data)
    with opened_archive(tmp_path / "a.zip") as archive, pytest.raises(FetchError, match="overlap"):
        plan_extraction(archive, LIMITS)


def test_a_file_longer_than_announced_is_cut_at_the_announcement(tmp_path) -> None:
    data = _zip(("big", b"x" * 5000), method=zipfile.ZIP_DEFLATED)
    (tmp_path / "a.zip").write_bytes(_patched(data, 24, 100))
    (tmp_path / "out").mkdir()
    with (
        pytest.raises(FetchError, match="not a whole zip archive"),
        opened_archive(tmp_path / "a.zip") as archive,
    ):
        extract(archive, plan_extraction(archive, LIMITS), tmp_path / "out", silent)
    assert (tmp_path / "out" / "big").stat().st_size <= 100


@pytest.mark.parametrize("top", ["", "llava/", "anything at all/"])
def test_a_single_top_folder_is_taken_off_and_litter_is_left_out(tmp_path, top) -> None:
    files = FILES | {"sub/notes.txt": b"n", ".DS_Store": b"litter"}
    (tmp_path / "a.zip").write_bytes(make_archive(files, top=top))
    with opened_archive(tmp_path / "a.zip") as archive:
        paths = [file.path for file in plan_extraction(archive, LIMITS)]
    expected = sorted(PurePosixPath(name) for name in files if name != ".DS_Store")
    assert paths == expected


def test_modes_in_the_archive_make_nothing_executable(run_fetch, served, tmp_path) -> None:
    mode = stat.S_IFREG | stat.S_ISUID | 0o777
    served.content = _zip((_entry("run.sh", mode=mode), b"x"))
    run_fetch()
    assert (tmp_path / "model" / "run.sh").stat().st_mode & 0o7111 == 0


def test_a_random_fault_is_an_error_or_harmless_but_never_a_crash(tmp_path) -> None:
    good = make_archive({"config.json": b"{}" * 50, "a/b.txt": b"abc" * 50})
    generator = random.Random(7)
    path = tmp_path / "a.zip"
    for number in range(400):
        data = bytearray(good)
        for _ in range(generator.randint(1, 3)):
            data[generator.randrange(len(data))] = generator.randrange(256)
        path.write_bytes(data)
        out = tmp_path / "out" / str(number)
        out.mkdir(parents=True)
        try:
            with opened_archive(path) as archive:
                extract(archive, plan_extraction(archive, LIMITS), out, silent)
        except FetchError:
            continue
    assert left_in(tmp_path) == ["a.zip", "out"]
