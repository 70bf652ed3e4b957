"""`fastvlm-compile store`: list, check and clean the artifact store."""

import json
import time
from pathlib import Path
from typing import TYPE_CHECKING

import click

from fastvlm_compile.commands.options import JSON, STORE

if TYPE_CHECKING:
    from fastvlm_compile.store_care import StoredEntry

_DAY_S = 86400


@click.group()
def store() -> None:
    """List, check and clean the artifact store."""


@store.command()
@STORE
@JSON
def ls(*, store_root: Path, as_json: bool) -> None:
    """List the entries: stage, key, size, age, and the recipes that use them."""
    from fastvlm_compile.store import Store
    from fastvlm_compile.store_care import inventory
    from fastvlm_compile.structure import to_plain

    entries = inventory(Store(root=store_root))
    if as_json:
        click.echo(json.dumps([to_plain(entry) for entry in entries], indent=2))
        return
    for entry in entries:
        click.echo(_line(entry))
    _tell_total(f"{len(entries)} entries", entries)


@store.command()
@STORE
@click.option(
    "--keep-days",
    type=click.FloatRange(min=0),
    default=0.0,
    metavar="N",
    help="Keep what was finished within N days.",
)
@click.option("--dry-run", is_flag=True, help="Show what would go and remove nothing.")
def gc(*, store_root: Path, keep_days: float, dry_run: bool) -> None:
    """Remove entries, and pieces of unfinished ones, that no recipe's latest build needs."""
    from fastvlm_compile.store import Store
    from fastvlm_compile.store_care import collect, unused

    act = unused if dry_run else collect
    entries = act(Store(root=store_root), keep_days=keep_days, now_s=time.time())
    for entry in entries:
        click.echo(_line(entry))
    _tell_total(f"{len(entries)} entries {'would be' if dry_run else 'were'} removed", entries)


@store.command()
@STORE
def verify(*, store_root: Path) -> None:
    """Read every byte of every entry; exit code 1 if any is not what it should be."""
    from fastvlm_compile.errors import VerificationError
    from fastvlm_compile.store import Store
    from fastvlm_compile.store_care import damages

    opened = Store(root=store_root)
    damaged = 0
    for damage in damages(opened):
        damaged += 1
        click.echo(f"{damage.key}  {damage.problem}")
    if damaged:
        raise VerificationError(
            f"{store_root}: {damaged} of {len(opened.entry_keys())} entries are damaged",
            hint="nothing is lost: the next build that needs one makes it anew",
        )
    click.echo(f"{len(opened.entry_keys())} entries, all whole", err=True)


def _line(entry: "StoredEntry") -> str:
    from fastvlm_compile.console import format_bytes

    age_days = (time.time() - entry.finished_s) / _DAY_S
    users = ", ".join(entry.recipes) or "-"
    name = f"{entry.stage} (unfinished)" if entry.unfinished else entry.stage or "(damaged)"
    size = format_bytes(entry.size_bytes)
    return f"{name:<28}  {entry.key[:12]}  {size:>9}  {age_days:6.1f} d  {users}"


def _tell_total(text: str, entries: "tuple[StoredEntry, ...]") -> None:
    from fastvlm_compile.console import format_bytes

    click.echo(f"{text}, {format_bytes(sum(entry.size_bytes for entry in entries))}", err=True)
