"""`push`: upload a bundle to a hub."""

import dataclasses
import json
import re
from pathlib import Path
from typing import TYPE_CHECKING

import click

from fastvlm_compile.commands.options import JSON

if TYPE_CHECKING:
    from fastvlm_compile.hub.upload import Upload

_REPO = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+", re.ASCII)
_ENDPOINT = re.compile(r"https?://[^/\s]+\S*")


def _repo(_context: click.Context, _option: click.Parameter, value: str) -> str:
    if not _REPO.fullmatch(value):
        raise click.BadParameter(f"{value!r} is not OWNER/NAME, as in apple/FastVLM-0.5B")
    return value


def _endpoint(_context: click.Context, _option: click.Parameter, value: str | None) -> str | None:
    if value is not None and not _ENDPOINT.fullmatch(value):
        raise click.BadParameter(f"{value!r} is no address; it starts with http:// or https://")
    return value


@click.command()
@click.argument("bundle", type=click.Path(path_type=Path))
@click.option("--repo", required=True, metavar="OWNER/NAME", callback=_repo, help="Where to.")
@click.option(
    "--revision", metavar="BRANCH", default="main", show_default=True, help="Made when missing."
)
@click.option("--private", is_flag=True, help="Upload to a private repository only.")
@click.option("--message", metavar="TEXT", help="Of the commit.  [default: Upload <bundle's name>]")
@click.option("--dry-run", is_flag=True, help="List what would be uploaded; needs no network.")
@click.option(
    "--endpoint", metavar="URL", callback=_endpoint, help="Another hub than huggingface_hub's."
)
@JSON
def push(
    *,
    bundle: Path,
    repo: str,
    revision: str,
    private: bool,
    message: str | None,
    dry_run: bool,
    endpoint: str | None,
    as_json: bool,
) -> None:
    """Verify BUNDLE and upload it to a Hugging Face repository, as one commit.

    The repository is made when it is missing. Files that it holds already are not sent again.
    """
    from fastvlm_compile.console import format_bytes
    from fastvlm_compile.hub.push import PushRequest
    from fastvlm_compile.hub.push import push as run_push
    from fastvlm_compile.hub.upload import upload_of

    upload = upload_of(bundle)
    if dry_run:
        _tell_files(upload, repo, as_json=as_json)
        return
    size = format_bytes(upload.size_bytes)
    click.echo(f"{bundle}: {len(upload.files)} files, {size}, verified; to {repo}", err=True)
    request = PushRequest(
        repo=repo,
        revision=revision,
        private=private,
        message=message or f"Upload {upload.name}",
        endpoint=endpoint,
    )
    pushed = run_push(request, upload)
    if as_json:
        num_files, size_bytes = len(upload.files), upload.size_bytes
        found = {"repo": repo, "revision": revision, "files": num_files, "size_bytes": size_bytes}
        click.echo(json.dumps(found | dataclasses.asdict(pushed), indent=2))
        return
    if pushed.others:
        click.echo(
            f"left alone: {len(pushed.others)} files there that are not of this bundle: "
            f"{', '.join(pushed.others[:3])}{', ...' if len(pushed.others) > 3 else ''}",
            err=True,
        )
    click.echo("pushed" if pushed.changed else "already there, nothing sent", err=True)
    click.echo(pushed.url)


def _tell_files(upload: "Upload", repo: str, *, as_json: bool) -> None:
    from fastvlm_compile.console import format_bytes

    if as_json:
        files = [dataclasses.asdict(file) for file in upload.files]
        found = {"repo": repo, "files": files, "size_bytes": upload.size_bytes}
        click.echo(json.dumps(found, indent=2, ensure_ascii=False))
        return
    for file in upload.files:
        click.echo(f"{format_bytes(file.size_bytes):>9}  {file.path}")
    click.echo(f"{format_bytes(upload.size_bytes):>9}  {len(upload.files)} files in all, to {repo}")
