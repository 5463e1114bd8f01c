"""Job ids, which RQ accepts and which name what the job is about."""

from __future__ import annotations

import re

from hypothesis import given
from hypothesis import strategies as st
from rq.job import JOB_ID_PATTERN

from musehub_plugin.ids import from_digest, to_hex
from musehub_plugin.store.jobs import index_job_id


@given(st.binary(min_size=32, max_size=32))
def test_f05_an_index_job_s_id_is_one_that_rq_accepts(digest: bytes) -> None:
    assert re.fullmatch(JOB_ID_PATTERN, index_job_id(from_digest(digest)))


@given(st.binary(min_size=32, max_size=32))
def test_an_index_job_s_id_ends_with_the_mpack_s_digits(digest: bytes) -> None:
    mpack_id = from_digest(digest)
    assert index_job_id(mpack_id).endswith(to_hex(mpack_id))
