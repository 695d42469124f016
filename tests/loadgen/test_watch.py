"""The gauges during a plan: a line for each read, whatever the server does, and never in the way."""

import json
import time

import pytest

from clients.endpoint import Endpoint
from loadgen import watch
from loadgen.scrape import Read
from loadgen.server_counters import ServerCounters
from loadgen.watch import Moment, Watch, read_moments
from tests.loadgen.commands import until

NOBODY = Endpoint.parse("http://127.0.0.1:1/v1")


def answering(monkeypatch, *answers):
    """Reads without a server: the next answer each time, the last one again and again."""
    asked = []

    def scrape(endpoint):
        asked.append(endpoint)
        answer = answers[min(len(asked), len(answers)) - 1]
        stamp = time.perf_counter_ns()
        known = {"absent": answer} if isinstance(answer, str) else {"counters": answer}
        return Read(began_ns=stamp, ended_ns=stamp + 5, **known)

    monkeypatch.setattr(watch, "scrape", scrape)
    return asked


def test_each_read_is_a_line_and_a_failed_one_says_why(monkeypatch, tmp_path):
    """Gauges as the server told them; a read without an answer stays in the file, and the watch goes on."""
    one = ServerCounters(running=3, waiting=7, kv_usage=0.5, preemptions=2, prompt_tokens=9)
    asked = answering(monkeypatch, one, "HTTP 500", ServerCounters(running=0))
    with Watch(NOBODY, tmp_path / "series", period_s=0.001):
        until(lambda: len(asked) > 3, "reads")
    first, second, third, *_ = read_moments(tmp_path / "series")
    assert (first.running, first.waiting, first.kv_usage, first.preemptions, first.absent) == (3, 7, 0.5, 2, "")
    assert first.ended_ns - first.began_ns == 5
    assert (second.running, second.absent) == (None, "HTTP 500")
    assert (third.running, third.waiting) == (0, None)
    assert set(json.loads((tmp_path / "series").read_bytes().split(b"\n")[2])) == {"began_ns", "ended_ns", "running"}


def test_a_watch_ends_with_its_plan_and_leaves_no_thread(monkeypatch, tmp_path):
    """Entered and left at once, a period away from its first read: nothing was asked, the file is empty."""
    asked = answering(monkeypatch, ServerCounters(running=1))
    with Watch(NOBODY, tmp_path / "series", period_s=3600.0) as one:
        pass
    assert not one._thread.is_alive()
    assert asked == []
    assert read_moments(tmp_path / "series") == []


def test_a_page_that_is_costly_to_read_is_read_less_often(monkeypatch, tmp_path):
    """A read that takes 20 ms of CPU is followed by a pause of fifty times that, not by the next period."""
    pauses = []
    answering(monkeypatch, ServerCounters(running=1))
    cpu_s = iter([0.0, 0.02, 1.0, 1.02])
    monkeypatch.setattr(watch.time, "thread_time", lambda: next(cpu_s))
    one = Watch(NOBODY, tmp_path / "series", period_s=0.001)

    def wait(pause_s):
        pauses.append(pause_s)
        return len(pauses) > 2

    monkeypatch.setattr(one._over, "wait", wait)
    one._run()
    assert pauses[0] == 0.001
    assert pauses[1:] == pytest.approx([1.0, 1.0])


def test_a_disk_that_refuses_ends_the_watch_and_nothing_else(monkeypatch, tmp_path):
    """The directory is gone: no error, no file, no read."""
    asked = answering(monkeypatch, ServerCounters(running=1))
    with Watch(NOBODY, tmp_path / "gone" / "series", period_s=0.001) as one:
        until(lambda: not one._thread.is_alive(), "its end")
    assert asked == []
    assert read_moments(tmp_path / "gone" / "series") == []


def test_a_line_that_was_left_half_costs_only_itself(tmp_path):
    """Killed while it wrote; and a line that is none, in the middle."""
    (tmp_path / "series").write_bytes(b'{"began_ns":1,"ended_ns":2,"running":3}\nnonsense\n{"began_ns":3,"ended_ns":4}\n{"began_ns":5,"en')
    assert read_moments(tmp_path / "series") == [Moment(began_ns=1, ended_ns=2, running=3), Moment(began_ns=3, ended_ns=4)]
