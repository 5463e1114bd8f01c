"""Every two things that a hub does, one of them held at each of its steps while the other one runs.

Whatever meets: nobody gets a 500, every pack that a fetch hands out verifies to the last byte, and what a push was
acknowledged for is there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

import pytest

from musehub_plugin import ids
from musehub_plugin.testing import History
from tests.faults.histories import several_blobs, steps
from tests.faults.laboratory import Laboratory, Servers
from tests.faults.muse import Answer, Muse

pytestmark = pytest.mark.faults

REPO = "alice/songs"
# Whose mpack waits to be indexed: garbage collection leaves a repo alone while it has such a one.
OTHER = "alice/other"


class Meeting:
    """A repo with something for everybody to do, and who does it.

    `main` is at a commit with two children: one was dropped from the branch two days ago and is garbage, one is
    uploaded and waits to be unpacked. A third commit is in another repo and waits to be indexed.
    """

    def __init__(self, lab: Laboratory) -> None:
        self.lab = lab
        web = lab.web()
        self.muse = web.muse
        self.repo_id = lab.create_repo(REPO)
        self.history = History()
        self.base = self.history.commit({f"{n}.txt": f"base {n}".encode() for n in range(3)})
        self.base_pack = self.history.pack()
        self.dropped, self.dropped_pack = self._child("dropped")
        self.new = self.history.commit({"new.txt": b"new", "shared.txt": b"in all of them"})
        self.new_pack = self.history.pack(want=[self.new])
        self.next, self.next_pack = self._child("next")
        self.acknowledged: dict[str, str] = {}
        self.deleted = False
        muse = self.muse
        assert muse.push(REPO, self.base_pack, self.base).status == 200
        assert muse.push(REPO, self.dropped_pack, self.dropped).status == 200
        for pack in (self.base_pack, self.dropped_pack):
            assert muse.lab(f"index/{ids.blob_id(pack)}").status == 200
        assert muse.push(REPO, self.base_pack, self.base, force=True).status == 200
        lab.create_repo(OTHER)
        assert muse.push(OTHER, self.new_pack, self.new).status == 200
        assert muse.upload(REPO, self.next_pack).status == 200
        assert muse.fetch(REPO, [self.base]).status == 200
        assert muse.lab("gc").status == 200
        lab.age("musehub_commit_ref", "unreachable_since")
        lab.age("musehub_fetch_pack", "used_at")
        self._reader = Muse(web.origin, "bob")
        self._rows = lab.keep_rows()
        self._objects = lab.stored_objects()

    def begin(self) -> None:
        """Put rows and objects back to where they were when all this began."""
        self.lab.control.forget()
        self.lab.restore_rows(self._rows)
        self.lab.restore_objects(self._objects)
        self.acknowledged = {"main": self.base}
        self.deleted = False

    def _child(self, name: str) -> tuple[str, bytes]:
        """Return a commit on the base, and the pack that brings it: three new blobs, and one that the dropped has."""
        files = {f"{name}-{n}.txt": f"{name} {n}".encode() for n in range(3)}
        commit = self.history.commit({**files, "shared.txt": b"in all of them"}, [self.base])
        return commit, self.history.pack(want=[commit], have=[self.base])

    def push(self) -> Answer:
        """Bring the dropped commit back, on a branch of its own."""
        answer = self.muse.push(REPO, self.dropped_pack, self.dropped, branch="back")
        if answer.code == "upload-not-found":
            answer = self.muse.push(REPO, self.dropped_pack, self.dropped, branch="back")
        if answer.status == 200:
            self.acknowledged["back"] = self.dropped
        return answer

    def unpack(self) -> Answer:
        """Move `main` on."""
        answer = self.muse.unpack(REPO, self.next_pack, self.next)
        if answer.status == 200:
            self.acknowledged["main"] = self.next
        return answer

    def index(self) -> Answer:
        """Index what waits for it."""
        return self.muse.lab(f"index/{ids.blob_id(self.new_pack)}")

    def fetch(self) -> Answer:
        """Fetch the base and what is garbage, as anybody; check what came."""
        want = [self.base, self.dropped]
        answer = self._reader.fetch(REPO, want)
        if answer.status == 200:
            self._reader.assert_complete(answer, self.history, want)
        # The same as was fetched before, whose pack may be collected.
        again = self._reader.fetch(REPO, [self.base])
        if again.status == 200:
            self._reader.assert_complete(again, self.history, [self.base])
        return answer

    def gc(self) -> Answer:
        """Collect garbage."""
        return self.muse.lab("gc")

    def delete(self) -> Answer:
        """Delete the repo."""
        self.deleted = True
        return self.muse.lab(f"delete/{self.repo_id}")

    def hide(self) -> Answer:
        """Make the repo private."""
        return self.muse.lab(f"hide/{self.repo_id}")

    def assert_nothing_lost(self) -> None:
        """Assert that what was acknowledged is there, and all of it sound."""
        for job in self.lab.sql("SELECT subject FROM musehub_job"):
            assert self.muse.lab(f"index/{job.subject}").status == 200
        self.muse.assert_fetchable(OTHER, self.history, {"main": self.new})
        if self.deleted:
            assert self.muse.fetch(REPO, [self.base]).status == 404
        else:
            self.muse.assert_fetchable(REPO, self.history, self.acknowledged)
        assert self.lab.verify().problems == []


DOES: dict[str, Callable[[Meeting], Answer]] = {
    "push": Meeting.push,
    "unpack": Meeting.unpack,
    "index": Meeting.index,
    "fetch": Meeting.fetch,
    "gc": Meeting.gc,
    "delete": Meeting.delete,
    "hide": Meeting.hide,
}


@pytest.fixture(scope="module")
def meeting(fault_servers: Servers, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Meeting]:
    """Everybody; their repo is put back by `begin`, since making it takes ten times as long as to meet."""
    with ExitStack() as closing:
        yield Meeting(Laboratory(fault_servers, tmp_path_factory.mktemp("races"), closing))


def meet(meeting: Meeting, one: str, step: str, other: str) -> None:
    """Hold `one` at a step, run `other` until it is done or waits for `one`, and let both finish."""
    lab = meeting.lab
    rule = lab.control.at(step, "hold")
    with ThreadPoolExecutor(2) as threads:
        first = threads.submit(DOES[one], meeting)
        lab.wait(lambda: rule.has_fired or first.done(), f"{one} at {step}")
        second = threads.submit(DOES[other], meeting)
        lab.wait(lambda: second.done() or lab.is_somebody_waiting(), f"{other} beside {one} at {step}")
        rule.release()
        answers = [first.result(), second.result()]
    assert rule.has_fired
    for name, answer in zip((one, other), answers, strict=True):
        # What is garbage, or of a repo that is gone or hidden, is not there; nothing else is in anybody's way.
        may_be_gone = name == "fetch" or (meeting.deleted and name in {"push", "unpack"})
        assert answer.status == 200 or (answer.status == 404 and may_be_gone), (name, answer)


@pytest.mark.parametrize("other", DOES)
@pytest.mark.parametrize("one", ["unpack", "index", "fetch", "gc", "push"])
def test_r22_two_that_meet_at_any_step(meeting: Meeting, one: str, other: str) -> None:
    # What a push is held at is what the unpacking of a pack that the repo holds is held at.
    for step in ["unpack.branch-moved"] if one == "push" else steps(one):
        meeting.begin()
        meet(meeting, one, step, other)
        meeting.assert_nothing_lost()


def test_r22_a_meeting_is_held_where_it_should_be(lab: Laboratory) -> None:
    # Else the races above would race nobody: a second push waits for a first one that is held.
    lab.create_repo(REPO)
    history, head = several_blobs("songs")
    web = lab.web()
    web.muse.upload(REPO, history.pack())
    rule = lab.control.at("unpack.branch-moved", "hold")
    with ThreadPoolExecutor(2) as threads:
        first = threads.submit(web.muse.unpack, REPO, history.pack(), head)
        rule.wait()
        second = threads.submit(web.muse.unpack, REPO, history.pack(), head)
        lab.wait(lab.is_somebody_waiting, "the second")
        assert not first.done()
        assert not second.done()
        rule.release()
