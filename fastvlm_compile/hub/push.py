"""Upload a bundle to a repository of a Hugging Face hub, in one commit, and look at what is there.

huggingface_hub does the uploading: large files go by their sha256 and are not sent again when the
hub has them, so a push that was cut off goes on, and a second push sends nothing.
"""

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

from fastvlm_compile.errors import HubError, PushError, ToolError
from fastvlm_compile.hub.refusals import hub_refusals
from fastvlm_compile.hub.upload import Upload
from fastvlm_compile.tree_digest import FileRecord

if TYPE_CHECKING:
    from huggingface_hub import HfApi, ModelInfo
    from huggingface_hub.hf_api import RepoFile

MAIN = "main"
_HUBS_OWN = ".gitattributes"
"""A hub puts it into every repository."""


@dataclass(frozen=True, kw_only=True)
class PushRequest:
    """Where a bundle is to go."""

    repo: str
    """`OWNER/NAME`."""
    revision: str
    """A branch; made when missing."""
    private: bool
    """Whether only a private repository will do; a new one is made so."""
    message: str
    endpoint: str | None
    """Address of the hub; None for the one that huggingface_hub is set to."""


@dataclass(frozen=True, kw_only=True)
class Pushed:
    """What stands in the repository now."""

    url: str
    """Of the commit."""
    commit: str
    changed: bool
    """False when the repository held every file already."""
    others: tuple[str, ...]
    """Files of the repository that are not the bundle's; they were left alone."""


def push(request: PushRequest, upload: Upload) -> Pushed:
    """Upload a bundle. Progress is shown on stderr by huggingface_hub.

    Raises:
        ToolError: huggingface_hub is not installed.
        HubError: there is no token, or the hub's names do not allow the repository's.
        PushError: the hub or the network refused, the repository is public and should not be, or
            it does not hold the bundle after the upload.
    """
    try:
        from huggingface_hub import CommitOperationAdd, HfApi, get_token
    except ImportError as error:
        raise ToolError(
            "a push needs huggingface_hub, which is not installed",
            hint="pip install 'fastvlm-compile[hub]'",
        ) from error
    if get_token() is None:
        raise HubError(
            "there is no token of the hub", hint="`hf auth login`, or set HF_TOKEN, and push again"
        )
    api = HfApi(endpoint=request.endpoint, library_name="fastvlm-compile")
    with hub_refusals(api.endpoint, request.repo):
        before = _repository(api, request)
        done = api.create_commit(
            request.repo,
            [
                CommitOperationAdd(
                    path_in_repo=file.path, path_or_fileobj=upload.bundle / file.path
                )
                for file in upload.files
            ],
            commit_message=request.message,
            revision=request.revision,
        )
        others = _check(api, request, upload, done.oid)
    return Pushed(
        url=str(done.commit_url), commit=done.oid, changed=done.oid != before.sha, others=others
    )


def _repository(api: "HfApi", request: PushRequest) -> "ModelInfo":
    """The repository as it is before the commit; made when missing."""
    api.create_repo(request.repo, private=request.private or None, exist_ok=True)
    info = api.model_info(request.repo)
    if request.private and not info.private:
        raise PushError(
            f"{request.repo}: this repository is there already and is public; nothing was uploaded",
            hint="make it private on the hub, choose another name, or leave --private out",
        )
    if request.revision != MAIN:
        api.create_branch(request.repo, branch=request.revision, exist_ok=True)
        info = api.model_info(request.repo, revision=request.revision)
    return info


def _check(api: "HfApi", request: PushRequest, upload: Upload, commit: str) -> tuple[str, ...]:
    """Compare the repository's files with the bundle's; the names of the others."""
    from huggingface_hub.hf_api import RepoFile

    tree = api.list_repo_tree(request.repo, recursive=True, revision=commit)
    there = {entry.path: entry for entry in tree if isinstance(entry, RepoFile)}
    for file in upload.files:
        entry = there.pop(file.path, None)
        if entry is None or not _same(upload, file, entry):
            state = "is missing from" if entry is None else "is another file in"
            raise PushError(
                f"{request.repo}: {file.path} {state} the repository after the upload",
                hint="push again; the repository's .gitignore must not name files of the bundle",
            )
    return tuple(sorted(there.keys() - {_HUBS_OWN}))


def _same(upload: Upload, file: FileRecord, entry: "RepoFile") -> bool:
    """By sha256 where the hub keeps the file apart from git, else by git's name for its bytes."""
    if entry.lfs is not None:
        return entry.lfs.sha256 == file.sha256
    content = (upload.bundle / file.path).read_bytes()
    blob = b"blob %d\0%b" % (len(content), content)
    return entry.blob_id == hashlib.sha1(blob, usedforsecurity=False).hexdigest()
