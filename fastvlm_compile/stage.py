"""What a build is made of: sources are folders from outside, stages are functions of folders."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True, kw_only=True)
class Source:
    """A folder from outside the build, keyed by the digest of its files."""

    name: str
    path: Path


@dataclass(frozen=True, kw_only=True)
class Stage:
    """One pure function of its inputs; its output is one folder of the store.

    The function has the signature `f(config, inputs, out, progress) -> None` where `inputs` maps a
    role to a folder to read, `out` is an empty folder to fill and `progress` is a `Progress`.
    It runs in a child process (`fastvlm_compile.worker`). The function of a resumable stage takes
    `kept`, a `reference.kept.Kept`, as well: the pieces of its work that a killed build has left.
    """

    name: str
    """Dotted name, unique in a plan: `onnx.vision_encoder`."""
    function: str
    """Where the code is: `fastvlm_compile.stages.onnx:vision_encoder`."""
    config: object
    """Frozen dataclass of str, int, float, bool, None, tuples of them and nested dataclasses."""
    inputs: Mapping[str, str]
    """Role -> name of the source or stage whose folder plays it."""
    tools: tuple[str, ...]
    """Distributions whose installed versions enter the key."""
    resumable: bool = False
    """Whether it works in pieces that are worth keeping; that changes nothing of its output."""


@dataclass(frozen=True, kw_only=True)
class Plan:
    """All stages of one recipe, each after those that it reads from."""

    recipe: str
    """The recipe's name."""
    sources: tuple[Source, ...]
    stages: tuple[Stage, ...]
    recipe_keys: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    """Stage -> config field -> the recipe's key that sets it, for messages."""

    def __post_init__(self) -> None:
        known = {source.name for source in self.sources}
        for stage in self.stages:
            assert stage.name not in known, f"{stage.name} is planned twice"
            missing = set(stage.inputs.values()) - known
            assert not missing, f"{stage.name} reads from {missing}, which is not planned before it"
            known.add(stage.name)
