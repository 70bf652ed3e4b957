"""`doctor`: what is installed, what is missing, and what that costs."""

import dataclasses
import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from fastvlm_compile.doctor import Capability, Examination
    from fastvlm_compile.machine import Machine

_GIB = 2**30


@click.command()
@click.option("--json", "as_json", is_flag=True, help="The findings as JSON.")
def doctor(*, as_json: bool) -> None:
    """Tell what is installed, what is missing and what each missing part costs.

    Exit code 1 only if nothing works.
    """
    from fastvlm_compile.doctor import examine
    from fastvlm_compile.errors import VerificationError
    from fastvlm_compile.machine import describe_machine

    examination = examine()
    machine = describe_machine(Path.cwd())
    if as_json:
        click.echo(json.dumps(_to_json(examination, machine), indent=2))
    else:
        click.echo(_to_text(examination, machine))
    if not examination.useful:
        raise VerificationError("nothing works here", hint="pip install 'fastvlm-compile[build]'")


def _to_json(examination: "Examination", machine: "Machine") -> dict[str, object]:
    return {
        "capabilities": [dataclasses.asdict(entry) for entry in examination.capabilities],
        "versions": dict(examination.versions),
        "machine": {**dataclasses.asdict(machine), "disk_path": str(machine.disk_path)},
    }


def _to_text(examination: "Examination", machine: "Machine") -> str:
    width = max(len(entry.name) for entry in examination.capabilities)
    lines = ["what works", *(f"  {_line(c, width)}" for c in examination.capabilities)]
    lines += ["", "installed"]
    lines += [f"  {name} {version or 'missing'}" for name, version in examination.versions.items()]
    lines += [
        "",
        "machine",
        f"  {machine.system}, Python {machine.python}",
        f"  {machine.num_cores} cores, {machine.memory_bytes / _GIB:.1f} GiB of memory",
        f"  {machine.free_disk_bytes / _GIB:.1f} GiB free at {machine.disk_path}",
    ]
    return "\n".join(lines)


def _line(capability: "Capability", width: int) -> str:
    text = f"{capability.name.ljust(width)}  {capability.status}"
    if capability.reason:
        text += f": {capability.reason}"
    return f"{text} ({capability.cure})" if capability.cure else text
