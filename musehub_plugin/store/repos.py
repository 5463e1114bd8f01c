"""Repos and branches."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import bindparam, select, update

from musehub_plugin.store.models import MusehubBranch, MusehubRepo
from musehub_plugin.store.prepared import Question
from musehub_plugin.store.session import Database, columns


@dataclass(frozen=True)
class RepoRecord:
    """A repo from the plugin's own table, as `repo_loader` of a host would give it."""

    repo_id: str
    owner: str
    slug: str
    visibility: str
    owner_user_id: str | None
    default_branch: str


_REPO = columns(MusehubRepo)
_FIND_REPO = Question(
    lambda _: select(
        _REPO.repo_id, _REPO.owner, _REPO.slug, _REPO.visibility, _REPO.owner_user_id, _REPO.default_branch
    ).where(_REPO.owner == bindparam("owner"), _REPO.slug == bindparam("slug"), _REPO.deleted_at.is_(None))
)


def find_repo(db: Database, owner: str, slug: str) -> RepoRecord | None:
    """Return the repo of that name, or None where there is none or it was deleted. One statement."""
    rows = _FIND_REPO.ask(db, owner=owner, slug=slug)
    return RepoRecord(*rows[0]) if rows else None


def delete_repo(db: Database, owner: str, slug: str) -> bool:
    """Close a repo of the plugin's own table, for garbage collection to remove later; say whether there was one."""
    statement = update(MusehubRepo).where(
        MusehubRepo.owner == owner, MusehubRepo.slug == slug, MusehubRepo.deleted_at.is_(None)
    )
    return db.change(statement.values(deleted_at=db.now()).execution_options(synchronize_session=False)) == 1


def default_branch(db: Database, repo_id: str) -> str | None:
    """Return what the plugin's own table says is the default branch, or None where the repo is not in it."""
    return db.execute(select(MusehubRepo.default_branch).where(MusehubRepo.repo_id == repo_id)).scalar()


_BRANCH = columns(MusehubBranch)
_BRANCH_HEADS = Question(
    lambda _: (
        select(_BRANCH.name, _BRANCH.head_commit_id)
        .where(_BRANCH.repo_id == bindparam("repo_id"))
        .order_by(_BRANCH.name)
    )
)
_PREVIOUS_HEADS = Question(
    lambda _: (
        select(_BRANCH.name, _BRANCH.head_commit_id, _BRANCH.previous_head_id)
        .where(_BRANCH.repo_id == bindparam("repo_id"), _BRANCH.previous_head_id.is_not(None))
        .order_by(_BRANCH.name)
    )
)


def branch_heads(db: Database, repo_id: str) -> dict[str, str]:
    """Return `{name: head commit id}` of a repo, by name."""
    return dict(_BRANCH_HEADS.ask(db, repo_id=repo_id))


def previous_heads(db: Database, repo_id: str) -> dict[str, tuple[str, str]]:
    """Return the head and the one before of those branches that have moved, by name."""
    return {name: (head, before) for name, head, before in _PREVIOUS_HEADS.ask(db, repo_id=repo_id)}


def lock_branch(db: Database, repo_id: str, name: str, new_head: str) -> str | None:
    """Lock a branch until the transaction ends, and return its head; None where this call made it, at `new_head`.

    A branch that does not exist is made at once: of two pushes that create it, the second waits here for the first.
    """
    if db.insert_one(MusehubBranch, {"repo_id": repo_id, "name": name, "head_commit_id": new_head}):
        return None
    head: str = db.execute(
        select(MusehubBranch.head_commit_id)
        .where(MusehubBranch.repo_id == repo_id, MusehubBranch.name == name)
        .with_for_update()
    ).scalar_one()
    return head


def move_branch(db: Database, repo_id: str, name: str, head: str) -> None:
    """Point a branch at `head`, and note where it pointed before."""
    db.change(
        update(MusehubBranch)
        .where(MusehubBranch.repo_id == repo_id, MusehubBranch.name == name)
        .values(head_commit_id=head, previous_head_id=MusehubBranch.head_commit_id)
        .execution_options(synchronize_session=False)
    )
