"""The threads that send share one core."""

import os
import sys

import pytest

from token_pipelines.delivery.workers import senders


@pytest.mark.skipif(sys.platform != "linux", reason="other systems do not say where a thread runs")
def test_senders_stay_on_one_core_and_leave_the_others_where_they_were() -> None:
    before = os.sched_getaffinity(0)
    with senders(3) as threads:
        work = [threads.submit(os.sched_getaffinity, 0) for _ in range(9)]
    cores = {frozenset(one.result()) for one in work}
    assert len(cores) == 1
    assert len(cores.pop() & before) == 1
    assert os.sched_getaffinity(0) == before


def test_senders_where_cores_cannot_be_chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_process: int, _cores: set[int]) -> None:
        raise PermissionError

    monkeypatch.setattr(os, "sched_setaffinity", refuse, raising=False)
    with senders(2) as threads:
        assert list(threads.map(abs, [-1, -2])) == [1, 2]
