"""What the server saw since it started or was reset: counts, peaks, and how late it wrote.

Knows numbers only. Law: `inflight` is the requests whose last byte was received and whose own last byte was not yet sent;
it goes down before that byte is written, so a client can never see the peak exceeded by its own next request.
"""

from typing import Any, Final

_BIN_NS: Final = 10_000
_BINS: Final = 20_000  # up to 200 ms; later writes count in the last bin, and exactly in the maximum


class Lateness:
    """Write instants minus the instants that were due; percentiles to 10 us, in fixed memory."""

    __slots__ = ("_bins", "count", "max_ns", "sum_ns")

    def __init__(self) -> None:
        self._bins = [0] * _BINS
        self.count = self.sum_ns = self.max_ns = 0

    def add(self, late_ns: int) -> None:
        self.count += 1
        self.sum_ns += late_ns
        if late_ns > self.max_ns:  # noqa: PLR1730 - max() costs three times as much, per token
            self.max_ns = late_ns
        position = late_ns // _BIN_NS
        self._bins[position if position < _BINS else _BINS - 1] += 1

    @property
    def mean_ns(self) -> float:
        return self.sum_ns / self.count if self.count else 0.0

    def quantile_ns(self, share: float) -> int:
        """Upper edge of the bin that holds the quantile."""
        below = 0
        for position, count in enumerate(self._bins):
            below += count
            if below >= share * self.count:
                return min((position + 1) * _BIN_NS, self.max_ns)
        return self.max_ns


class Stats:
    """Counters of one stretch between resets."""

    def __init__(self) -> None:
        self.inflight = 0
        self.running = 0
        self.reset()

    def reset(self) -> None:
        self.lateness = Lateness()
        self.requests = self.answered = self.refused = self.cancelled = 0
        self.faults: dict[str, int] = {}
        self.inflight_peak = self.inflight
        self.running_peak = self.running
        self.waiting_peak = 0
        self.tokens_written = 0

    def come_in(self) -> None:
        self.requests += 1
        self.inflight += 1
        self.inflight_peak = max(self.inflight_peak, self.inflight)

    def go_out(self) -> None:
        self.inflight -= 1

    def see(self, running: int, waiting: int) -> None:
        self.running = running
        self.running_peak = max(self.running_peak, running)
        self.waiting_peak = max(self.waiting_peak, waiting)

    def snapshot(self) -> dict[str, Any]:
        late = self.lateness
        return {
            "requests_total": self.requests,
            "requests_inflight": self.inflight,
            "requests_inflight_peak": self.inflight_peak,
            "requests_answered": self.answered,
            "requests_refused": self.refused,
            "requests_cancelled": self.cancelled,
            "requests_faulted": dict(self.faults),
            "running_peak": self.running_peak,
            "waiting_peak": self.waiting_peak,
            "tokens_written": self.tokens_written,
            "lateness": {
                "writes": late.count,
                "mean_us": late.mean_ns / 1e3,
                "p50_us": late.quantile_ns(0.5) / 1e3,
                "p99_us": late.quantile_ns(0.99) / 1e3,
                "max_us": late.max_ns / 1e3,
            },
        }
