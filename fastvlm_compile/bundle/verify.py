"""Every byte of a bundle against its manifest."""

import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Literal

from fastvlm_compile.bundle.manifest import MANIFEST_NAME, Manifest, parse_manifest
from fastvlm_compile.errors import BundleError, VerificationError
from fastvlm_compile.tree_digest import FileRecord, sha256_of

ProblemKind = Literal["changed", "missing", "added", "not a file", "unreadable"]


@dataclass(frozen=True, kw_only=True)
class Problem:
    """One way in which a bundle is not what its manifest says."""

    kind: ProblemKind
    path: str
    """In the bundle, with `/`."""
    detail: str


@dataclass(frozen=True, kw_only=True)
class Verification:
    """What was checked and what was found."""

    name: str
    """Of the bundle; empty if its manifest cannot be understood."""
    num_files: int
    size_bytes: int
    problems: tuple[Problem, ...]

    @property
    def ok(self) -> bool:
        """Whether the bundle is whole."""
        return not self.problems


def verify_bundle(bundle: Path) -> Verification:
    """Checks that a bundle holds exactly the files of its manifest, byte for byte.

    Symbolic links, devices and folders that hold nothing are problems too. A manifest that was
    changed in any byte is itself the problem; the files cannot then be judged.

    Raises:
        BundleError: there is no such folder.
    """
    if not bundle.is_dir():
        raise BundleError(f"{bundle}: there is no such bundle", hint="`fastvlm-compile build` it")
    found = dict(sorted(_entries(bundle)))
    manifest_or_problem = _manifest(bundle, found)
    if isinstance(manifest_or_problem, Problem):
        return Verification(name="", num_files=0, size_bytes=0, problems=(manifest_or_problem,))
    manifest = manifest_or_problem
    expected = {file.path: file for file in manifest.files}
    folders = {str(folder) for name in expected for folder in PurePosixPath(name).parents}
    problems = [
        problem
        for name in sorted({*found, *expected} - {MANIFEST_NAME})
        for problem in _judge(bundle, name, found.get(name), expected.get(name), folders)
    ]
    return Verification(
        name=manifest.name,
        num_files=len(manifest.files) + 1,
        size_bytes=sum(file.size_bytes for file in manifest.files),
        problems=tuple(problems),
    )


def _entries(bundle: Path) -> Iterator[tuple[str, os.stat_result]]:
    """Everything below the bundle; links are not followed."""

    def refuse(error: OSError) -> None:
        raise BundleError(f"{error.filename}: cannot be read: {error.strerror}") from error

    for parent, folders, files in os.walk(bundle, onerror=refuse):
        for name in (*folders, *files):
            path = Path(parent, name)
            yield path.relative_to(bundle).as_posix(), path.lstat()


def _manifest(bundle: Path, found: dict[str, os.stat_result]) -> Manifest | Problem:
    state = found.get(MANIFEST_NAME)
    if state is None:
        return Problem(kind="missing", path=MANIFEST_NAME, detail="nothing can be checked")
    if not stat.S_ISREG(state.st_mode):
        return Problem(kind="not a file", path=MANIFEST_NAME, detail=_describe(state))
    path = bundle / MANIFEST_NAME
    try:
        return parse_manifest(path.read_bytes(), source=MANIFEST_NAME)
    except BundleError as error:
        detail = error.message.removeprefix(f"{MANIFEST_NAME}: ")
        return Problem(kind="changed", path=MANIFEST_NAME, detail=detail)
    except OSError as error:
        return Problem(kind="unreadable", path=MANIFEST_NAME, detail=str(error.strerror))


def _judge(
    bundle: Path,
    name: str,
    found: os.stat_result | None,
    expected: FileRecord | None,
    folders: set[str],
) -> Iterator[Problem]:
    if found is None:
        assert expected is not None
        yield Problem(kind="missing", path=name, detail=f"{expected.size_bytes} bytes")
    elif expected is None:
        if not (stat.S_ISDIR(found.st_mode) and name in folders):
            yield Problem(kind="added", path=name, detail=_describe(found))
    elif not stat.S_ISREG(found.st_mode):
        yield Problem(kind="not a file", path=name, detail=_describe(found))
    elif found.st_size != expected.size_bytes:
        detail = f"{found.st_size} bytes, expected {expected.size_bytes}"
        yield Problem(kind="changed", path=name, detail=detail)
    else:
        yield from _judge_content(bundle / name, expected)


def _judge_content(path: Path, expected: FileRecord) -> Iterator[Problem]:
    try:
        sha256 = sha256_of(path)
    except OSError as error:
        yield Problem(kind="unreadable", path=expected.path, detail=str(error.strerror))
        return
    if sha256 != expected.sha256:
        detail = f"sha256 {sha256[:12]}..., expected {expected.sha256[:12]}..."
        yield Problem(kind="changed", path=expected.path, detail=detail)


def _describe(state: os.stat_result) -> str:
    kinds = {
        stat.S_IFLNK: "a symbolic link",
        stat.S_IFDIR: "a folder",
        stat.S_IFREG: f"a file of {state.st_size} bytes",
    }
    return kinds.get(stat.S_IFMT(state.st_mode), "neither a file nor a folder")


def refuse_damaged(bundle: Path, *, since: str = "") -> None:
    """Nothing is added to a bundle that is not as it was built.

    Args:
        bundle: a bundle.
        since: for the message, what may have changed it.

    Raises:
        VerificationError: that, with the first thing that is wrong.
    """
    problems = verify_bundle(bundle).problems
    if problems:
        first = problems[0]
        raise VerificationError(
            f"{bundle}: it is not as it was built{since}: {first.kind}: {first.path}",
            hint=f"`fastvlm-compile verify {bundle}` lists all that is wrong",
        )
