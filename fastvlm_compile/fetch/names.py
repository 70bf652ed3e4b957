"""The released checkpoints, as data: what they are called here and where their archives lie.

Source: the table of the `apple/ml-fastvlm` repository and its `get_models.sh`.
"""

from dataclasses import dataclass
from urllib.parse import urlsplit

from fastvlm_compile.errors import FetchError

BASE_URL = "https://ml-site.cdn-apple.com/datasets/fastvlm"

_GB = 10**9
_SIZES_GB = (("0.5b", 4), ("1.5b", 10), ("7b", 40))
"""Twice what weights in half precision take, rounded up: an archive beyond it is another thing."""


@dataclass(frozen=True, kw_only=True)
class Release:
    """One released checkpoint."""

    name: str
    """As it is asked for: `0.5b-stage3`."""
    folder: str
    """Name of the archive without `.zip`, and of the folder that it becomes."""
    max_bytes: int
    """Bound of the archive, and of what comes out of it."""


RELEASES = {
    f"{size}-stage{stage}": Release(
        name=f"{size}-stage{stage}",
        folder=f"llava-fastvithd_{size}_stage{stage}",
        max_bytes=max_gb * _GB,
    )
    for size, max_gb in _SIZES_GB
    for stage in (2, 3)
}
"""By the name that is asked for."""


def archive_url(release: Release, base_url: str) -> str:
    """Where the archive of a release lies below `base_url`.

    Raises:
        FetchError: `base_url` is not a plain http(s) address.
    """
    try:
        parts = urlsplit(base_url)
        plain = parts.scheme in ("http", "https") and parts.hostname and parts.username is None
    except ValueError:
        plain = None
    if not plain or parts.query or parts.fragment:
        raise FetchError(
            f"{base_url!r} is not a base address",
            hint=f"expected http(s)://host/folder, as in {BASE_URL}",
        )
    return f"{base_url.rstrip('/')}/{release.folder}.zip"
