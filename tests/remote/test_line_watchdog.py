"""The watchdog by itself: deadlines in any order, one thread, nothing piled up."""

from __future__ import annotations

import os
import threading
import time

import pytest

from toolkit.errors import LineLost, RemoteError, Unreachable
from toolkit.remote.address import Limits
from toolkit.remote.watchdog import WATCHDOG, Guard


class Victim:
    """A guard whose end can be waited for."""

    def __init__(self, name: str, limits: Limits) -> None:
        self.ended = threading.Event()
        self.guard = Guard(name, limits, self.ended.set)

    def late(self) -> RemoteError:
        return Unreachable(f"{self.guard.name} is late", cause="auth-timeout")


def test_a_near_deadline_overtakes_a_far_one() -> None:
    far, near = Victim("far", Limits()), Victim("near", Limits())
    far.guard.begin(60, far.late)
    near.guard.begin(0.2, near.late)
    assert near.ended.wait(20)
    assert not far.ended.is_set()
    assert isinstance(near.guard.fate, Unreachable)
    for victim in (far, near):
        victim.guard.close()


def test_a_step_that_ends_in_time_leaves_no_deadline_behind() -> None:
    victim = Victim("quick", Limits(silence=60))
    victim.guard.begin(0.2, victim.late)
    victim.guard.ready()
    assert not victim.ended.wait(0.5)
    victim.guard.close()


def test_the_first_fate_stays() -> None:
    victim = Victim("one", Limits())
    first, second = (LineLost(name, cause="closed") for name in ("first", "second"))
    victim.guard.condemn(first)
    victim.guard.condemn(second)
    assert victim.guard.fate is first
    with pytest.raises(LineLost, match="first"):
        victim.guard.begin(1, victim.late)
    with pytest.raises(LineLost, match="first"), victim.guard.traffic():
        pass
    victim.guard.close()


def test_one_thread_and_one_note_for_each_line_however_many_steps() -> None:
    before = threading.active_count()
    victims = [Victim(str(n), Limits()) for n in range(20)]
    for _ in range(50):
        for victim in victims:
            victim.guard.begin(60, victim.late)
    assert threading.active_count() == before + 1
    assert len(WATCHDOG._due) <= 2 * len(victims)
    for victim in victims:
        victim.guard.close()
    WATCHDOG.join()
    assert threading.active_count() == before
    assert not WATCHDOG._due


def test_it_starts_again_after_it_ended() -> None:
    for name in ("first", "second"):
        victim = Victim(name, Limits())
        victim.guard.begin(0.05, victim.late)
        assert victim.ended.wait(20)
        victim.guard.close()
        WATCHDOG.join()


def test_silence_of_many_callers_ends_with_the_last() -> None:
    victim = Victim("duplex", Limits(silence=0.4))
    victim.guard.begin(60, victim.late)
    victim.guard.ready()
    with victim.guard.traffic():
        for _ in range(8):
            time.sleep(0.1)
            with victim.guard.traffic():
                victim.guard.moved_now()
        assert victim.guard.fate is None
        assert victim.ended.wait(20)
    assert victim.guard.fate is not None
    assert victim.guard.fate.cause == "silence"
    victim.guard.close()


def test_a_defect_of_one_line_leaves_the_others_watched() -> None:
    def broken() -> RemoteError:
        raise KeyError("no such step")

    one, other = Victim("one", Limits()), Victim("other", Limits())
    one.guard.begin(0.05, broken)
    other.guard.begin(0.3, other.late)
    assert one.ended.wait(20)
    assert "one: " in str(one.guard.fate)
    assert "KeyError" in str(one.guard.fate)
    assert other.ended.wait(20)
    for victim in (one, other):
        victim.guard.close()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
def test_a_forked_child_has_a_watchdog_of_its_own() -> None:
    parent = Victim("parent", Limits())
    parent.guard.begin(60, parent.late)
    pid = os.fork()
    if pid == 0:  # only _exit from here: the child must not run pytest's own ends
        status = 1
        try:
            child = Victim("child", Limits())
            child.guard.begin(0.1, child.late)
            status = 0 if child.ended.wait(20) else 2
        finally:
            os._exit(status)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    parent.guard.close()
