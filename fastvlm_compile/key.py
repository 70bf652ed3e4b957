"""What decides a stage's output, and the key made of it."""

import hashlib
import importlib.metadata
import json
import platform
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from fastvlm_compile.code_digest import CodeReader
from fastvlm_compile.errors import ToolError
from fastvlm_compile.stage import Stage
from fastvlm_compile.structure import to_plain

KEY_SCHEMA = 1
"""Raised when what enters the key changes its meaning; it makes every older entry a miss."""


@dataclass(frozen=True, kw_only=True)
class Ingredients:
    """Everything that a stage's output may depend on."""

    stage: str
    function: str
    config: Mapping[str, str]
    """Dotted field -> its value as JSON."""
    inputs: Mapping[str, str]
    """Role -> digest of the folder that plays it."""
    code: Mapping[str, str]
    """Module or data file of ours -> sha256."""
    tools: Mapping[str, str]
    """Distribution -> version."""
    schema: int = KEY_SCHEMA

    @property
    def key(self) -> str:
        """The full sha256 of it all, in hexadecimal."""
        return hashlib.sha256(canonical_json(to_plain(self))).hexdigest()


def canonical_json(value: object) -> bytes:
    """One spelling for equal values."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False).encode()


def gather(
    stage: Stage, *, input_digests: Mapping[str, str], code: CodeReader, tools: "ToolVersions"
) -> Ingredients:
    """The ingredients of a stage whose inputs have these digests (by role).

    Raises:
        ToolError: one of the stage's tools is not installed.
    """
    module = stage.function.partition(":")[0]
    return Ingredients(
        stage=stage.name,
        function=stage.function,
        config=dict(_flat("", to_plain(stage.config))),
        inputs=dict(input_digests),
        code=code.digests(module),
        tools=tools.of(stage),
    )


class ToolVersions:
    """Versions of installed distributions; each is looked up once."""

    def __init__(self) -> None:
        self._known: dict[str, str] = {"python": platform.python_version()}

    def of(self, stage: Stage) -> dict[str, str]:
        """Version of each of the stage's tools, and of Python.

        Raises:
            ToolError: one of them is not installed.
        """
        for name in stage.tools:
            if name not in self._known:
                try:
                    self._known[name] = importlib.metadata.version(name)
                except importlib.metadata.PackageNotFoundError:
                    raise ToolError(
                        f"the stage {stage.name} needs {name}, which is not installed",
                        hint="pip install 'fastvlm-compile[build]'",
                    ) from None
        return {name: self._known[name] for name in sorted(("python", *stage.tools))}


def differences(
    old: Ingredients, new: Ingredients, *, stage: Stage, recipe_keys: Mapping[str, str]
) -> tuple[str, ...]:
    """Why the key is another one, in words; empty when it is the same.

    Args:
        old: the ingredients of the latest build.
        new: the ingredients of the build to come.
        stage: names the inputs.
        recipe_keys: config field -> the recipe's key that sets it.
    """
    reasons = []
    for field, before, after in _changed(old.config, new.config):
        key = recipe_keys.get(field)
        subject = f"recipe key {key}" if key else f"config {field}"
        reasons.append(f"{subject}: {before} -> {after}")
    reasons.extend(
        f"input {stage.inputs.get(role, role)} changed"
        for role, _, _ in _changed(old.inputs, new.inputs)
    )
    if modules := [name for name, _, _ in _changed(old.code, new.code)]:
        reasons.append(f"code of {shortened(modules)} changed")
    reasons.extend(
        f"tool {name} {before} -> {after}" for name, before, after in _changed(old.tools, new.tools)
    )
    if (old.function, old.schema) != (new.function, new.schema):
        reasons.append("the stage itself was defined anew")
    return tuple(reasons)


def _changed(old: Mapping[str, str], new: Mapping[str, str]) -> Iterator[tuple[str, str, str]]:
    for name in sorted({*old, *new}):
        if old.get(name) != new.get(name):
            yield name, old.get(name, "none"), new.get(name, "none")


def shortened(names: Iterable[str], limit: int = 3) -> str:
    """The first few of many names, and how many more there are."""
    names = list(names)
    more = f" and {len(names) - limit} more" if len(names) > limit else ""
    return ", ".join(names[:limit]) + more


def _flat(prefix: str, value: object) -> Iterator[tuple[str, str]]:
    if isinstance(value, dict):
        for name, below in value.items():
            yield from _flat(f"{prefix}.{name}" if prefix else name, below)
    else:
        yield prefix, json.dumps(value)
