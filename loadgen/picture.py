"""The self-test's curves as a picture: error of the reported times against streams, both on logarithmic axes.

Knows pixels and curves; must not compute what a curve says. Pure: the same curves give the same bytes. Pillow is imported on use.
"""

from __future__ import annotations

import io
import math
from itertools import pairwise
from typing import TYPE_CHECKING

from loadgen.selftest import BOUND_P50_S, BOUND_P99_S

if TYPE_CHECKING:
    from collections.abc import Sequence

    from PIL import ImageDraw
    from PIL.ImageFont import FreeTypeFont, ImageFont

    from loadgen.selftest import Curve, Error, Rung

_WIDTH, _HEIGHT = 620, 460  # of one panel: a mode
_LEFT, _RIGHT, _TOP, _BOTTOM = 76, 16, 64, 56
# Colours that are told apart in print and by colour-blind readers (Okabe and Ito).
_SHOWN = (("TTFT", "ttft", "#D55E00"), ("ITL", "itl", "#0072B2"), ("end to end", "latency", "#009E73"))
_INK, _PALE, _LIMIT, _LATE = "#202020", "#DDDDDD", "#B00020", "#9A9AA8"
_LOWEST_S, _HIGHEST_S = 1e-5, 10.0
_DASH = 6


def draw(curves: Sequence[Curve], title: str) -> bytes:
    """A PNG with a panel for each curve. Solid: p99; dashed: p50; a grey point: the server was late itself."""
    from PIL import Image, ImageDraw

    image = Image.new("RGB", (_WIDTH * max(1, len(curves)), _HEIGHT), "white")
    pen = ImageDraw.Draw(image)
    pen.text((_LEFT, 8), title, fill=_INK, font=_font(15))
    for number, curve in enumerate(curves):
        _Panel(pen, number * _WIDTH, curve).draw()
    stream = io.BytesIO()
    image.save(stream, "PNG")
    return stream.getvalue()


class _Panel:
    """One mode: its axes, and two lines for each time that is reported."""

    def __init__(self, pen: ImageDraw.ImageDraw, at: int, curve: Curve) -> None:
        self._pen = pen
        self._curve = curve
        self._x0, self._x1 = at + _LEFT, at + _WIDTH - _RIGHT
        self._y0, self._y1 = _HEIGHT - _BOTTOM, _TOP
        streams = [rung.streams for rung in curve.rungs]
        self._low, self._high = math.log2(min(streams)), math.log2(max(streams))
        errors = [error.p99_s for rung in curve.rungs for _, name, _ in _SHOWN if (error := _error(rung, name))]
        decades = math.ceil(math.log10(max([BOUND_P99_S * 2, *errors])))
        self._top_s = min(_HIGHEST_S, 10.0**decades)

    def draw(self) -> None:
        self._axes()
        for place, (label, name, colour) in enumerate(_SHOWN):
            self._line([(rung.streams, error.p99_s) for rung in self._curve.rungs if (error := _error(rung, name))], colour, dashed=False)
            self._line([(rung.streams, error.p50_s) for rung in self._curve.rungs if (error := _error(rung, name))], colour, dashed=True)
            self._pen.text((self._x0 + 150 + 85 * place, self._y1 - 24), label, fill=colour, font=_font(13))
        for rung in self._curve.rungs:
            for _, name, colour in _SHOWN:
                if error := _error(rung, name):
                    x, y = self._x(rung.streams), self._y(error.p99_s)
                    self._pen.ellipse((x - 4, y - 4, x + 4, y + 4), fill=_LATE if rung.late else colour)

    def _axes(self) -> None:
        pen, small = self._pen, _font(12)
        pen.text((self._x0, self._y1 - 24), self._curve.mode, fill=_INK, font=_font(14))
        decade = _LOWEST_S
        while decade <= self._top_s * 1.01:
            y = self._y(decade)
            pen.line((self._x0, y, self._x1, y), fill=_PALE)
            pen.text((self._x0 - 8, y), _seconds(decade), fill=_INK, font=small, anchor="rm")
            decade *= 10
        for rung in self._curve.rungs:
            x = self._x(rung.streams)
            pen.line((x, self._y0, x, self._y0 + 5), fill=_INK)
            pen.text((x, self._y0 + 8), str(rung.streams), fill=_INK, font=small, anchor="ma")
        for bound, name in ((BOUND_P99_S, "bound of p99"), (BOUND_P50_S, "bound of p50")):
            self._dashes((self._x0, self._y(bound)), (self._x1, self._y(bound)), _LIMIT)
            pen.text((self._x0 + 2, self._y(bound) - 2), name, fill=_LIMIT, font=_font(11), anchor="lb")
        pen.line((self._x0, self._y1, self._x0, self._y0, self._x1, self._y0), fill=_INK)
        pen.text(
            ((self._x0 + self._x1) / 2, _HEIGHT - 10),
            "streams of one worker; solid: p99, dashed: p50, grey points: the server itself was late",
            fill=_INK,
            font=small,
            anchor="mb",
        )
        pen.text((self._x0 - 8, self._y1 - 10), "error", fill=_INK, font=small, anchor="rb")

    def _x(self, streams: int) -> float:
        share = (math.log2(streams) - self._low) / (self._high - self._low) if self._high > self._low else 0.5
        return self._x0 + 20 + share * (self._x1 - self._x0 - 40)

    def _y(self, error_s: float) -> float:
        share = math.log10(min(max(error_s, _LOWEST_S), self._top_s) / _LOWEST_S) / math.log10(self._top_s / _LOWEST_S)
        return self._y0 - share * (self._y0 - self._y1)

    def _line(self, points: Sequence[tuple[int, float]], colour: str, *, dashed: bool) -> None:
        placed = [(self._x(streams), self._y(error_s)) for streams, error_s in points]
        for start, end in pairwise(placed):
            if dashed:
                self._dashes(start, end, colour)
            else:
                self._pen.line((*start, *end), fill=colour, width=2)

    def _dashes(self, start: tuple[float, float], end: tuple[float, float], colour: str) -> None:
        length = math.dist(start, end)
        across, down = ((end[k] - start[k]) / max(length, 1) for k in (0, 1))
        for at in range(0, int(length), 2 * _DASH):
            stop = min(at + _DASH, length)
            self._pen.line((start[0] + across * at, start[1] + down * at, start[0] + across * stop, start[1] + down * stop), fill=colour)


def _error(rung: Rung, name: str) -> Error | None:
    found: Error | None = getattr(rung, name)
    return found


def _seconds(value: float) -> str:
    return f"{value:g} s" if value >= 0.999 else f"{value * 1e3:g} ms" if value >= 0.000_999 else f"{value * 1e6:g} us"


def _font(size: int) -> FreeTypeFont | ImageFont:
    from PIL import ImageFont as fonts  # noqa: N813 - the module has the name of a class in it

    return fonts.load_default(size)
