"""Tests of one `xdist_group` in one worker, so that what they share is built once.

`--dist loadgroup` promises this, but pytest-xdist 3.8 marks the group in a test's node id in a way
that pytest 9 no longer shows to the scheduler. A group here is the whole file that names it.
"""

import re
from functools import cache
from pathlib import Path

import pytest
from xdist.scheduler import LoadScopeScheduling

_GROUP = re.compile(r"^pytestmark = pytest\.mark\.xdist_group\(\"([^\"]+)\"\)", re.MULTILINE)


@cache
def group_of(path: Path) -> str:
    """The group that a file puts all its tests in; empty for none."""
    found = _GROUP.search(path.read_text(encoding="utf-8"))
    return found[1] if found else ""


class GroupScheduling(LoadScopeScheduling):
    """One unit of work for each group, and for each file that names none."""

    def __init__(self, config: pytest.Config, log: object) -> None:
        super().__init__(config, log)
        self._root = config.rootpath

    def _split_scope(self, nodeid: str) -> str:
        path, _, _ = nodeid.partition("::")
        return group_of(self._root / path) or path
