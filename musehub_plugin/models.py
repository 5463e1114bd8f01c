"""The models that a host and its tests may use: the contract's section 5.

The tables themselves are in `musehub_plugin.store.models`.
"""

from musehub_plugin.store.models import (
    Base,
    MusehubBranch,
    MusehubCommit,
    MusehubCommitGraph,
    MusehubCommitRef,
    MusehubMPackIndex,
    MusehubObject,
    MusehubObjectRef,
    MusehubRepo,
    MusehubSnapshot,
    MusehubSnapshotRef,
)

__all__ = [
    "Base",
    "MusehubBranch",
    "MusehubCommit",
    "MusehubCommitGraph",
    "MusehubCommitRef",
    "MusehubMPackIndex",
    "MusehubObject",
    "MusehubObjectRef",
    "MusehubRepo",
    "MusehubSnapshot",
    "MusehubSnapshotRef",
]
