"""Publishing is all or nothing, whatever stops it and whenever."""

import errno
import os
import resource
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
from bundle_folders import content_of, names_in

from fastvlm_compile.bundle import assemble as assemble_module
from fastvlm_compile.bundle import publish
from fastvlm_compile.bundle.assemble import BundlePlan, assemble
from fastvlm_compile.bundle.publish import published
from fastvlm_compile.bundle.verify import verify_bundle
from fastvlm_compile.durable import Disk
from fastvlm_compile.errors import OutputError

KILLED = 9
Changed = Callable[..., BundlePlan]


@dataclass
class Countdown:
    """Does something at its n-th step."""

    at: int
    action: Callable[[], None]
    steps: list[str] = field(default_factory=list)

    def __call__(self, what: str) -> None:
        self.steps.append(what)
        if len(self.steps) == self.at:
            self.action()


def in_child(work: Callable[[], object]) -> int:
    """Runs `work` in a process of its own; its exit code, 0 if it ended by itself."""
    child = os.fork()
    if child == 0:
        try:
            work()
        except BaseException:  # noqa: BLE001 - nothing may escape into pytest's copy
            os._exit(1)
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def die() -> None:
    os._exit(KILLED)


def killed_at(step: int, plan: BundlePlan, out: Path) -> bool:
    """Whether an assembly that is killed at its n-th step was killed before its end."""
    return in_child(lambda: assemble(plan, out, disk=Disk(step=Countdown(step, die)))) == KILLED


@pytest.fixture
def next_plan(plan: BundlePlan, changed: Changed) -> BundlePlan:
    return changed(root_files={**plan.root_files, "config.json": b'{"second": true}\n'})


def test_killed_at_any_step_there_is_no_bundle_or_a_whole_one(
    plan: BundlePlan, tmp_path: Path
) -> None:
    out = tmp_path / "dist" / "sample"
    step, seen = 1, set()
    while killed_at(step, plan, out):
        seen.add(out.exists())
        if out.exists():
            assert verify_bundle(out).ok
        step += 1
    assert step > 10
    assert seen == {False, True}  # kills before and after the moment it took its name
    assert verify_bundle(out).ok
    assert names_in(out.parent) == ["sample"]


@pytest.mark.parametrize("atomic", [True, False])
def test_killed_at_any_step_the_old_bundle_or_the_new_one_is_there_and_whole(
    atomic: bool,
    plan: BundlePlan,
    next_plan: BundlePlan,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if atomic and not publish.exchange(*two_folders(tmp_path)):
        pytest.skip("this kernel or file system cannot swap two names in one step")
    if not atomic:
        without = lambda out, *, marker, disk: published(  # noqa: E731
            out, marker=marker, disk=disk, exchange=lambda one, other: False
        )
        monkeypatch.setattr(assemble_module, "published", without)
    out = tmp_path / "dist" / "sample"
    old = content_of(assemble(plan, out))
    new = content_of(assemble(next_plan, tmp_path / "other"))
    step, gone = 1, 0
    while killed_at(step, next_plan, out):
        if out.exists():
            assert verify_bundle(out).ok
            assert content_of(out) in (old, new)
        else:
            gone += 1
        assemble(plan, out)  # the next run puts everything right
        assert content_of(out) == old
        assert names_in(out.parent) == ["sample"]
        step += 1
    assert step > 10
    assert content_of(out) == new
    assert gone == (0 if atomic else 1)


def two_folders(parent: Path) -> tuple[Path, Path]:
    one, other = parent / "one", parent / "two"
    for folder in (one, other):
        folder.mkdir()
        (folder / folder.name).touch()
    return one, other


def test_exchange_swaps_two_folders_or_says_that_it_cannot(tmp_path: Path) -> None:
    one, other = two_folders(tmp_path)
    if not publish.exchange(one, other):
        one, other = other, one
    assert names_in(one) == ["two"]
    assert names_in(other) == ["one"]


def test_a_lost_old_bundle_is_given_back_before_a_build_that_fails(
    plan: BundlePlan, tmp_path: Path
) -> None:
    out = tmp_path / "sample"
    assemble(plan, out).rename(tmp_path / ".sample.old-1")  # a kill between two renames
    full = Disk(step=Countdown(3, lambda: fail(errno.ENOSPC)))
    with pytest.raises(OutputError):
        assemble(plan, out, disk=full)
    assert verify_bundle(out).ok


def fail(number: int) -> None:
    raise OSError(number, os.strerror(number))


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (errno.ENOSPC, "there is no space left"),
        (errno.EROFS, "cannot be written: Read-only file system"),
        (errno.EACCES, "cannot be written: Permission denied"),
    ],
)
def test_a_refusing_disk_is_told_and_nothing_is_lost_or_left(
    number: int,
    words: str,
    plan: BundlePlan,
    next_plan: BundlePlan,
    tmp_path: Path,
) -> None:
    out = tmp_path / "dist" / "sample"
    before = content_of(assemble(plan, out))
    steps = Countdown(0, lambda: None)
    assemble(next_plan, tmp_path / "count", disk=Disk(step=steps))
    for step in range(1, len(steps.steps)):  # the last one comes after the swap
        with pytest.raises(OutputError, match=words):
            assemble(next_plan, out, disk=Disk(step=Countdown(step, lambda: fail(number))))
        assert content_of(out) == before
        assert names_in(out.parent) == ["sample"]


def test_a_file_that_the_system_cuts_short_is_a_full_disk(plan: BundlePlan, tmp_path: Path) -> None:
    def work() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (2000, 2000))
        with pytest.raises(OutputError, match="no space left"):
            assemble(plan, tmp_path / "sample")

    assert in_child(work) == 0
    assert not (tmp_path / "sample").exists()


def test_too_little_free_space_is_told_before_anything_is_copied(
    plan: BundlePlan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = replace_free(tmp_path, 5000)
    monkeypatch.setattr(assemble_module.shutil, "disk_usage", lambda path: usage)
    with pytest.raises(OutputError, match="no space left"):
        assemble(plan, tmp_path / "sample")
    assert not (tmp_path / "sample").exists()


def replace_free(folder: Path, free: int) -> object:
    import shutil

    return shutil.disk_usage(folder)._replace(free=free)


def test_an_interrupted_build_leaves_the_old_bundle_and_nothing_else(
    plan: BundlePlan, next_plan: BundlePlan, tmp_path: Path
) -> None:
    out = tmp_path / "dist" / "sample"
    before = content_of(assemble(plan, out))

    def interrupt() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        assemble(next_plan, out, disk=Disk(step=Countdown(4, interrupt)))
    assert content_of(out) == before
    assert names_in(out.parent) == ["sample"]


def test_a_folder_that_is_not_a_bundle_is_never_replaced(plan: BundlePlan, tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").touch()
    with pytest.raises(OutputError, match="something that is not a bundle"):
        assemble(plan, tmp_path)
    assert (tmp_path / "thesis.txt").exists()


def test_an_empty_folder_is_taken(plan: BundlePlan, tmp_path: Path) -> None:
    (tmp_path / "sample").mkdir()
    assert verify_bundle(assemble(plan, tmp_path / "sample")).ok


def test_a_file_or_a_link_in_the_way_is_told(plan: BundlePlan, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "link").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(OutputError, match="a file stands there"):
        assemble(plan, tmp_path / "file")
    with pytest.raises(OutputError, match="something is in the way"):
        assemble(plan, tmp_path / "file" / "sample")
    with pytest.raises(OutputError, match="a symbolic link"):
        assemble(plan, tmp_path / "link")


def test_a_publication_that_is_still_going_on_is_not_swept_away(tmp_path: Path) -> None:
    out = tmp_path / "sample"
    with published(out, marker="mark", disk=Disk()) as slow:
        (slow / "mark").write_text("slow")
        with published(out, marker="mark", disk=Disk()) as fast:
            (fast / "mark").write_text("fast")
        assert (out / "mark").read_text() == "fast"
        assert (slow / "mark").read_text() == "slow"
    assert (out / "mark").read_text() == "slow"
    assert names_in(tmp_path) == ["sample"]


def test_bundles_of_other_names_beside_it_are_left_alone(plan: BundlePlan, tmp_path: Path) -> None:
    for name in ("sample2", "other"):
        assemble(replace(plan, name=name), tmp_path / name)
    (tmp_path / ".sample2.partial-5").mkdir()
    assemble(plan, tmp_path / "sample")
    assert names_in(tmp_path) == [
        ".sample2.partial-5",
        "other",
        "sample",
        "sample2",
        "store",
    ]
