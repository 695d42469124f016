"""Failures on request: which kinds exist, and which request gets one.

Knows nothing of sockets or engines; the server acts out what is decided here.
Law: the fault of request number n is a pure function of (shares, seed, n), so that a run can be repeated failure by failure.
"""

from collections.abc import Mapping
from typing import Final

# kind -> what the client sees
KINDS: Final[Mapping[str, str]] = {
    "rate-limit-429": "429 without Retry-After",
    "rate-limit-429-retry-after": "429 with Retry-After",
    "rate-limit-404": "404 with a proxy's HTML body: rate limiting as some gateways do it",
    "model-missing-404": "404 with vLLM's NotFoundError body",
    "unavailable-503": "503 as vLLM's full queue sends it",
    "slow": "the answer, after an extra delay",
    "reset": "the connection is reset after some tokens",
    "reset-early": "the connection is reset before the head of the answer",
    "stream-error": "200, then an error event with code 503, then [DONE] (without a stream: 503)",
    "truncate": "an orderly end after some tokens, without finish_reason and [DONE]",
}

_MASK: Final = (1 << 64) - 1


def parse_fault_shares(text: str) -> dict[str, float]:
    """Read `"kind=share,kind=share"` into {kind: share}; shares are of all requests and add up to at most 1.

    Raises:
        ValueError: one line naming the part that is wrong and what is taken.

    """
    shares: dict[str, float] = {}
    for part in filter(None, (part.strip() for part in text.split(","))):
        kind, equals, number = part.partition("=")
        if kind not in KINDS:
            raise ValueError(f"faults: unknown kind {kind!r}; takes {', '.join(KINDS)}")
        try:
            share = float(number) if equals else 1.0
        except ValueError:
            share = -1.0
        if not 0 <= share <= 1:
            raise ValueError(f"faults: {part!r}: a share is a number from 0 to 1")
        if kind in shares:
            raise ValueError(f"faults: {kind!r} is named twice")
        shares[kind] = share
    if sum(shares.values()) > 1 + 1e-9:  # 0.1 * 10 is not exactly 1 in floating point
        raise ValueError(f"faults: the shares of {text!r} add up to {sum(shares.values()):g}, at most 1")
    return shares


def unit_draw(seed: int, n: int, stream: int = 0) -> float:
    """A number in [0, 1) from (seed, n, stream): SplitMix64's finaliser, which has no state to share or lose."""
    z = (seed * 0x9E3779B97F4A7C15 + n * 0xBF58476D1CE4E5B9 + stream * 0x94D049BB133111EB + 0x9E3779B97F4A7C15) & _MASK
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & _MASK
    return ((z ^ (z >> 31)) >> 11) / (1 << 53)


def fault_of(shares: Mapping[str, float], seed: int, n: int) -> str | None:
    """The kind that request number `n` (from 0) fails with, or None."""
    if not shares:
        return None
    draw = unit_draw(seed, n)
    for kind, share in shares.items():
        draw -= share
        if draw < 0:
            return kind
    return None


def tokens_before_fault(seed: int, n: int, output_tokens: int) -> int:
    """After how many tokens (1 to output_tokens - 1; 1 for a single token) a reset or truncated answer breaks off."""
    return 1 + int(unit_draw(seed, n, stream=1) * (output_tokens - 1)) if output_tokens > 1 else 1
