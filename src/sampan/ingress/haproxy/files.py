"""Where the files of a HAProxy are."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Files:
    """Where the files are (0700, ours) and which addresses of the node it binds."""

    directory: Path
    addresses: tuple[str, ...]

    @property
    def configuration(self) -> Path:
        return self.directory / "haproxy.cfg"

    @property
    def admin_socket(self) -> Path:
        return self.directory / "admin.sock"

    @property
    def master_socket(self) -> Path:
        return self.directory / "master.sock"

    @property
    def lua(self) -> Path:
        return Path(__file__).with_name("routes.lua")

    @property
    def root(self) -> Path:
        """What HAProxy's worker sees of the file system."""
        return self.directory / "empty"

    @property
    def mirror_lua(self) -> Path:
        return Path(__file__).with_name("mirror.lua")

    @property
    def mirror_socket(self) -> Path:
        """Where copies of requests come in: `mirror.lua` knows it by its name in the root."""
        return self.root / "mirror.sock"

    def map(self, name: str) -> Path:
        return self.directory / f"{name}.map"

    @property
    def named(self) -> Path:
        """For files that are named after their content."""
        return self.directory / "named"

    @property
    def default_certificate(self) -> Path:
        return self.directory / "default.pem"

    def certificate(self, name: str) -> Path:
        return self.named / f"{name}.pem"

    def certificate_list(self, name: str) -> Path:
        return self.named / f"{name}.crt-list"

    def page(self, name: str, status: int) -> Path:
        return self.named / f"{name}-{status}.http"

    def authority(self, name: str) -> Path:
        return self.named / f"{name}.pem"
