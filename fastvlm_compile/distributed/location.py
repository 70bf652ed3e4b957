"""Where a store is, in words that every machine understands."""

import hashlib
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from fastvlm_compile.store import Store


@dataclass(frozen=True, kw_only=True)
class StoreLocation:
    """An absolute path that all machines share, or any URL that fsspec can write to."""

    address: str

    @classmethod
    def parse(cls, text: str) -> "StoreLocation":
        """What a user wrote: `DIR` or `PROTOCOL://...`."""
        return cls(address=text if "://" in text else str(Path(text).resolve()))

    @property
    def is_url(self) -> bool:
        """Whether each machine needs a folder of its own beside it."""
        return "://" in self.address

    @property
    def short_digest(self) -> str:
        """Tells stores apart in names of tasks and folders."""
        return hashlib.sha256(self.address.encode()).hexdigest()[:12]

    @property
    def shown(self) -> str:
        """The address without a password."""
        parts = urlsplit(self.address)
        if parts.password is None:
            return self.address
        return parts._replace(
            netloc=f"{parts.username}:***@{parts.netloc.rpartition('@')[2]}"
        ).geturl()

    def store(self, local: Path) -> Store:
        """The store as this machine sees it.

        Args:
            local: for a URL, where this machine keeps what it brings from there.

        Raises:
            StoreError: nothing that is installed can reach the URL.
        """
        if not self.is_url:
            return Store(root=Path(self.address))
        from fastvlm_compile.distributed.mirror import Mirror
        from fastvlm_compile.distributed.remote import Remote

        return Mirror(root=local, remote=Remote.at(self.address, shown=self.shown))
