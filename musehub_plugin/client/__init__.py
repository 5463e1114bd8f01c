"""A client of a muse hub: clone, fetch, push, and import from git, as a library and as the command `musehub`.

    from pathlib import Path
    from musehub_plugin.client import HubTransport, Workdir, clone, push

    hub = HubTransport("https://hub.example/ada/engine", token="...")
    copy = clone(hub, Path("engine")).workdir
    push(copy, hub)

It needs nothing of the plugin but the mpack format and the ids: Flask, SQLAlchemy and minio need not be installed.
Every error that it raises for a caller to see is a `ClientError`, whose text is one line.
"""

from musehub_plugin.client.apply import Applied, apply_mpack
from musehub_plugin.client.checkout import CheckedOut, checkout
from musehub_plugin.client.clone import Cloned, clone
from musehub_plugin.client.errors import (
    BadMPack,
    ClientError,
    GitImportError,
    HubRefused,
    HubUnreachable,
    InsecureTokenError,
    WorkdirError,
)
from musehub_plugin.client.fetch import Fetched, fetch
from musehub_plugin.client.gitimport import GitImport, import_git
from musehub_plugin.client.push import NotFastForwardError, Pushed, PushedBranch, push
from musehub_plugin.client.remotes import remote_url, remotes, set_remote
from musehub_plugin.client.transport import HubTransport, Progress
from musehub_plugin.client.verify import Verified, verify
from musehub_plugin.client.workdir import Workdir

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
    "Progress",
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
    "push",
    "remote_url",
    "remotes",
    "set_remote",
    "verify",
]
