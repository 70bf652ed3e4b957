"""Builds the tiny bundle by the command line, as a user does."""

import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

REPOSITORY = Path(__file__).parents[1]


def run_cli(*arguments: object, cwd: Path) -> "subprocess.CompletedProcess[str]":
    """`fastvlm-compile` in a process of its own, its output captured."""
    command = [sys.executable, "-m", "fastvlm_compile", *map(str, arguments)]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False)


@dataclass(frozen=True, kw_only=True)
class Build:
    """A finished build: the bundle, its store, and what the command printed."""

    bundle: Path
    store: Path
    stderr: str

    def manifest(self) -> dict[str, object]:
        """The bundle's manifest."""
        manifest: dict[str, object] = json.loads((self.bundle / "manifest.json").read_text())
        return manifest


def build(folder: Path, recipe: Path = REPOSITORY / "recipes/tiny.yaml") -> Build:
    """Build `recipe` with a store and a bundle of its own under `folder`."""
    bundle, store = folder / "bundle", folder / "store"
    result = run_cli("build", recipe, "--store", store, "--out", bundle, "--quiet", cwd=folder)
    assert result.returncode == 0, result.stderr
    return Build(bundle=bundle, store=store, stderr=result.stderr)
