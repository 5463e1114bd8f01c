"""Pushes, forced pushes and fetches in any order, by several clients of two repos that share contents."""

from __future__ import annotations

import tempfile
from pathlib import Path

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from musehub_plugin.testing.apps import close_app, hub_of, make_app
from musehub_plugin.testing.factories import History, create_repo
from tests.effort import effort
from tests.exchange import Caller
from tests.integration.oracle.client_store import ClientStore

REPOS = ("alice/songs", "alice/drums")
CONTENTS = (b"", b"one\n", b"two\n" * 50, b"three\n" * 200)
repos = st.sampled_from(REPOS)
trees = st.dictionaries(st.sampled_from(("a.txt", "b/c.txt", "d.txt")), st.sampled_from(CONTENTS), max_size=3)


class Exchange(RuleBasedStateMachine):
    """Whatever happens, each client's store is whole, true, and holds nothing that its repo was not given."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.TemporaryDirectory()
        self.app = make_app(Path(self.folder.name))
        self.caller = Caller(self.app, "alice")
        self.local = {repo: History() for repo in REPOS}
        self.pushed: dict[str, set[str]] = {repo: set() for repo in REPOS}
        self.heads: dict[str, dict[str, str]] = {repo: {} for repo in REPOS}
        self.clients = {repo: [ClientStore(), ClientStore()] for repo in REPOS}

    @initialize()
    def make_repos(self) -> None:
        with self.app.app_context():
            for repo in REPOS:
                owner, slug = repo.split("/")
                create_repo(hub_of(self.app).sqlalchemy.session, owner, slug)

    @rule(repo=repos, files=trees, data=st.data())
    def commit(self, repo: str, files: dict[str, bytes], data: st.DataObject) -> None:
        """Commit on any commits made so far: a root, a line, a branch or a merge."""
        made = list(self.local[repo].commits)
        parents = data.draw(st.lists(st.sampled_from(made), max_size=3)) if made else []
        self.local[repo].commit(files, parents)

    @precondition(lambda self: any(history.commits for history in self.local.values()))
    @rule(repo=repos, branch=st.sampled_from(("main", "side")), force=st.booleans(), data=st.data())
    def push(self, repo: str, branch: str, force: bool, data: st.DataObject) -> None:
        """Push any commit to any branch: what is refused must be no fast-forward."""
        history = self.local[repo]
        if not history.commits:
            return
        head = data.draw(st.sampled_from(list(history.commits)))
        before = self.heads[repo].get(branch)
        pack = history.pack(want=[head], have=self.pushed[repo])
        response = self.caller.push(repo, pack, head, branch=branch, force=force)
        if force or before is None or before in history.reachable([head]):
            assert response.status_code == 200, response.get_data(as_text=True)
            self.pushed[repo] |= history.reachable([head])
            self.heads[repo][branch] = head
        else:
            assert response.status_code == 409, response.get_data(as_text=True)

    @precondition(lambda self: any(self.pushed.values()))
    @rule(repo=repos, number=st.integers(0, 1), data=st.data())
    def fetch(self, repo: str, number: int, data: st.DataObject) -> None:
        """Fetch any commits that were pushed, saying all or some of what the client has."""
        if not self.pushed[repo]:
            return
        client = self.clients[repo][number]
        want = data.draw(st.lists(st.sampled_from(sorted(self.pushed[repo])), min_size=1, max_size=3))
        held = sorted(client.commits)
        have = data.draw(st.one_of(st.just(held), st.lists(st.sampled_from(held), max_size=2))) if held else []
        expected = self.local[repo].reachable(want) - self.local[repo].reachable(have)
        answer = client.fetch(self.caller, repo, want, have)
        assert answer["commit_count"] == len(expected)

    @rule(repo=repos)
    def read_refs(self, repo: str) -> None:
        """Every branch is where the last push that was taken put it."""
        assert self.caller.refs(repo).get_json()["branch_heads"] == self.heads[repo]

    @invariant()
    def every_client_store_is_whole_and_true(self) -> None:
        """What a fetch brought has nothing missing, nothing false and nothing of elsewhere."""
        for repo, clients in self.clients.items():
            for client in clients:
                assert (client.false_ids(), client.missing()) == ([], set())
                assert client.commits.keys() <= self.pushed[repo]

    def teardown(self) -> None:
        """Close the hub."""
        close_app(self.app)
        self.folder.cleanup()


Exchange.TestCase.settings = effort(12, stateful_step_count=20)
test_no_order_of_pushes_and_fetches_harms_a_client = Exchange.TestCase
