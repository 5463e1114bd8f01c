"""A client of a muse hub: clone, fetch, push, and import from git, as a library and as the command `musehub`.

    from pathlib import Path
    from musehub_plugin.client import HubTransport, Workdir, clone, push

    hub = HubTransport("https://hub.example/ada/engine", token="...")
    copy = clone(hub, Path("engine")).workdir
    push(copy, hub)

It needs nothing of the plugin but the mpack format and the ids: Flask, SQLAlchemy and minio need not be installed.
Every error that it raises for a caller to see is a `ClientError`, whose text is one line.

The names are loaded when they are first used, so that the command answers `--help` without loading an HTTP client.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from musehub_plugin.client.applied import Applied
    from musehub_plugin.client.apply import apply_mpack
    from musehub_plugin.client.cloning import Cloned, clone
    from musehub_plugin.client.errors import (
        BadMPack,
        ClientError,
        GitImportError,
        HubRefused,
        HubUnreachable,
        InsecureTokenError,
        WorkdirError,
    )
    from musehub_plugin.client.fetching import Fetched, fetch
    from musehub_plugin.client.gitimport import import_git
    from musehub_plugin.client.gitpolicy import GitImport
    from musehub_plugin.client.packing import Packed, pack, unpack
    from musehub_plugin.client.progress import Progress
    from musehub_plugin.client.pulling import Pulled, pull
    from musehub_plugin.client.pushing import NotFastForwardError, Pushed, PushedBranch, push
    from musehub_plugin.client.remoteconfig import remote_url, remotes, set_remote
    from musehub_plugin.client.transport import HubTransport
    from musehub_plugin.client.verifying import Verified, verify
    from musehub_plugin.client.workdir import Workdir
    from musehub_plugin.client.worktree import CheckedOut, checkout

# No module has the name of a function that it gives: importing it would put the module in the function's place.
_MODULES = {
    "applied": ("Applied",),
    "apply": ("apply_mpack",),
    "cloning": ("Cloned", "clone"),
    "errors": (
        "BadMPack",
        "ClientError",
        "GitImportError",
        "HubRefused",
        "HubUnreachable",
        "InsecureTokenError",
        "WorkdirError",
    ),
    "fetching": ("Fetched", "fetch"),
    "gitimport": ("import_git",),
    "gitpolicy": ("GitImport",),
    "packing": ("Packed", "pack", "unpack"),
    "progress": ("Progress",),
    "pulling": ("Pulled", "pull"),
    "pushing": ("NotFastForwardError", "Pushed", "PushedBranch", "push"),
    "remoteconfig": ("remote_url", "remotes", "set_remote"),
    "transport": ("HubTransport",),
    "verifying": ("Verified", "verify"),
    "workdir": ("Workdir",),
    "worktree": ("CheckedOut", "checkout"),
}
_HOME = {name: module for module, names in _MODULES.items() for name in names}

__all__ = [
    "Applied",
    "BadMPack",
    "CheckedOut",
    "ClientError",
    "Cloned",
    "Fetched",
    "GitImport",
    "GitImportError",
    "HubRefused",
    "HubTransport",
    "HubUnreachable",
    "InsecureTokenError",
    "NotFastForwardError",
    "Packed",
    "Progress",
    "Pulled",
    "Pushed",
    "PushedBranch",
    "Verified",
    "Workdir",
    "WorkdirError",
    "apply_mpack",
    "checkout",
    "clone",
    "fetch",
    "import_git",
    "pack",
    "pull",
    "push",
    "remote_url",
    "remotes",
    "set_remote",
    "unpack",
    "verify",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
    return value
