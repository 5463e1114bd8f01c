"""What a reader accepts from a stranger, and the one error for all that it does not."""

from __future__ import annotations

from dataclasses import dataclass

KIB = 1 << 10
MIB = 1 << 20
GIB = 1 << 30


class MPackError(ValueError):
    """The bytes are no mpack, or one that exceeds a limit; the message says what is wrong and where."""


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds that a reader checks before it spends memory or time; a writer keeps to the sizes of single things.

    The defaults fit big histories and a reader with a few hundred MiB: a hub that takes packs from strangers may
    lower them. What they bound besides memory is time: `max_manifest_changes` costs about 1 microsecond each and
    `max_total_entries` about 0.1 microseconds each, as every snapshot's id is a hash over its whole manifest.

    Attributes:
        max_file_size: size of the file.
        max_toc_size: raw size of the table of contents.
        max_frames: frames in the file.
        max_commits: commits in the pack.
        max_snapshots: snapshots in the pack.
        max_blobs: blobs in the pack; a reader of snapshots holds 32 bytes for each.
        max_outside: objects that manifests name and the pack does not hold; 32 bytes each.
        max_manifest_entries: paths in one manifest; in all manifests together that a thin pack starts from.
        max_manifest_changes: paths set or removed, over all snapshots as they are written.
        max_total_entries: sum of the sizes of all manifests.
        max_blob_size: size of one blob.
        max_raw_size: size of everything, decompressed.
        max_ratio: how many times the file's size may be decompressed from it, beyond `ratio_allowance`. As much may a
            thin pack make its reader read of its own blobs, each counted as 4 KiB at least.
        ratio_allowance: decompressed bytes that need no such excuse.
        max_parents: parents of one commit.
        max_path_size: UTF-8 size of one path.
        max_message_size: UTF-8 size of one commit message.
        max_text_size: UTF-8 size of a branch, an author or a date.
        max_extra_size: msgpack size of the further fields of one commit.
        max_extra_items: values in them, containers and keys counted.
        max_extra_depth: containers inside one another in them.
        max_window_log: log2 of the largest zstd window.
    """

    max_file_size: int = 64 * GIB
    max_toc_size: int = 2 * MIB
    max_frames: int = 65_536
    max_commits: int = 2_000_000
    max_snapshots: int = 2_000_000
    max_blobs: int = 4_000_000
    max_outside: int = 4_000_000
    max_manifest_entries: int = 1_000_000
    max_manifest_changes: int = 50_000_000
    max_total_entries: int = 1_000_000_000
    max_blob_size: int = 4 * GIB
    max_raw_size: int = 1024 * GIB
    max_ratio: int = 1024
    ratio_allowance: int = 64 * MIB
    max_parents: int = 1024
    max_path_size: int = 4 * KIB
    max_message_size: int = MIB
    max_text_size: int = 16 * KIB
    max_extra_size: int = MIB
    max_extra_items: int = 100_000
    max_extra_depth: int = 32
    max_window_log: int = 24
