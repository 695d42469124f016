"""run.json: what a run was asked to do, and what its files say came of it.

Knows the shape of the document and which file each part comes from; must not know how it is shown, nor compute a statistic
(reducer, verdict and ranking do). Law: but for the opening and the ending, which only the live run could know, the document is a
pure function of the records: `build` makes the same one after the run, a year later, or after a crash.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import msgspec

from clients.errors import UsageError
from clients.secret import MASK
from loadgen.ceiling import KeptCeiling
from loadgen.conclusion import GridReport, concluded
from loadgen.curve import Curve, Sought
from loadgen.distribution import STANDARD_PERCENTILES
from loadgen.environment import Environment, environment
from loadgen.objectives import Objective
from loadgen.plan_report import Asked, PlanReport, plan_report
from loadgen.rundir import run_key
from loadgen.summary import SCHEMA, Accounting, Summary, Verdict
from loadgen.target import Target

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from clients.messages import Sampling
    from loadgen.plan import Plan
    from loadgen.rundir import RunDirectory


class Opening(msgspec.Struct, kw_only=True):
    """What is known before anything is sent; written first.

    started: UTC, RFC 3339. arguments: as typed, without secrets. target: its header values are masked. workload: one line that
    names what is sent. sampling: what every body carries beside the prompt. percentiles: what is computed; asked_percentiles: those
    that the user named, which alone can have too few samples. stamping: where reads are stamped (`arrival`: in the
    protocol's callback; `wake`: where the reader wakes). simulator: the parameters of the embedded one, when it was the server.
    ceiling: what a self-test of this machine, version and transport had found; the verdict goes by it, here and wherever the report
    is made again. None: there was none. objectives: what makes a request good; attainment: the share of them that shall be.
    sought: what a search looks for.
    """

    id: str
    command: str
    started: str
    target: Target
    workload: str
    sampling: dict[str, Any]
    seed: int
    cache: str
    percentiles: tuple[float, ...]
    asked_percentiles: tuple[float, ...]
    environment: Environment
    arguments: dict[str, Any] = {}
    profile: dict[str, Any] | None = None
    simulator: dict[str, Any] | None = None
    stamping: str = ""
    label: str | None = None
    metadata: dict[str, str] = {}
    notes: list[str] = []
    ceiling: KeptCeiling | None = None
    objectives: tuple[Objective, ...] = ()
    attainment: float | None = None
    sought: Sought | None = None

    @classmethod
    def of(
        cls,
        directory: RunDirectory,
        *,
        command: str,
        target: Target,
        workload: str,
        sampling: Sampling,
        seed: int = 0,
        cache: str = "unique",
        asked_percentiles: Sequence[float] = (),
        arguments: Mapping[str, Any] | None = None,
        profile: Mapping[str, Any] | None = None,
        simulator: Mapping[str, Any] | None = None,
        stamping: str = "",
        label: str | None = None,
        metadata: Mapping[str, str] | None = None,
        notes: Sequence[str] = (),
        ceiling: KeptCeiling | None = None,
        objectives: Sequence[Objective] = (),
        attainment: float | None = None,
        sought: Sought | None = None,
    ) -> Opening:
        """The opening of a run that starts now on this machine."""
        return cls(
            id=directory.id,
            command=command,
            started=_utc_now(),
            target=msgspec.structs.replace(target, headers=dict.fromkeys(target.headers, MASK)),
            workload=workload,
            sampling=sampling.as_body(),
            seed=seed,
            cache=cache,
            percentiles=tuple(sorted({*STANDARD_PERCENTILES, *asked_percentiles})),
            asked_percentiles=tuple(asked_percentiles),
            environment=environment(),
            arguments=dict(arguments or {}),
            profile=None if profile is None else {key: value for key, value in profile.items() if key != "api_key"},
            simulator=None if simulator is None else {key: value for key, value in simulator.items() if key != "api_key"},
            stamping=stamping,
            label=label,
            metadata=dict(metadata or {}),
            notes=list(notes),
            ceiling=ceiling,
            objectives=tuple(objectives),
            attainment=attainment,
            sought=sought,
        )


class Ending(msgspec.Struct, kw_only=True, frozen=True):
    """How the live run ended. interrupted: the number of the signal that ended it early, None for its own end."""

    at: str
    interrupted: int | None = None


class Document(msgspec.Struct, kw_only=True, frozen=True):
    """The whole of run.json. ended: None while the run goes on, or after a crash. verdict: None while the run goes on.

    accounting: of all plans together, warm-up included. curve: of a sweep or a search.
    """

    schema: int
    verdict: Verdict | None = None
    run: Opening
    ended: Ending | None = None
    accounting: Accounting | None = None
    grid: GridReport | None = None
    curve: Curve | None = None
    plans: list[PlanReport] = []

    @property
    def measured(self) -> list[tuple[Summary, Verdict]]:
        """What came of the plans that count."""
        return [(summary, verdict) for _, summary, verdict in self.measured_plans]

    @property
    def measured_plans(self) -> list[tuple[Plan, Summary, Verdict]]:
        """The plans that count, as far as there is something of them: warm-ups are none of them."""
        return [
            (one.plan, one.summary, one.verdict)
            for one in self.plans
            if one.plan is not None and one.plan.purpose == "measure" and one.summary is not None and one.verdict is not None
        ]


def write_opening(directory: RunDirectory, opening: Opening) -> None:
    """Write run.json as it stands before the first request."""
    _write(directory, Document(schema=SCHEMA, run=opening))


def reduced(place: Path, opening: Opening) -> PlanReport:
    """What the files of one plan say. Once its workers have ended that changes no more, so a live run may keep it for `conclude`."""
    # Not the directory's own name: a run that was copied or renamed is still the run that it was.
    asked = Asked(opening.percentiles, opening.asked_percentiles, opening.objectives, opening.attainment, opening.ceiling, opening.command)
    return plan_report(place, run_key(opening.id), asked)


def conclude(directory: RunDirectory, kept: Mapping[str, PlanReport], *, interrupted: int | None) -> Document:
    """The document of a live run at its end, written to run.json and returned. Raises OSError when its files are gone.

    kept: the plans that were `reduced` meanwhile, by the names of their directories; the others are made of their files now.
    """
    before = _decoded(directory.document_path.read_bytes())
    before = msgspec.structs.replace(before, ended=Ending(at=_utc_now(), interrupted=interrupted))
    _write(directory, before)  # should reducing not come to its end, how the run ended is known
    document = _built(directory, before, kept)
    _write(directory, document)
    return document


def rebuild(directory: RunDirectory) -> Document:
    """`build`, and written to run.json unless the directory cannot be written. Of a run that goes on: what it has, without a verdict."""
    document = build(directory)
    if directory.is_running():  # its workers only look lost, and the file is the run's
        return msgspec.structs.replace(document, verdict=None)
    try:
        _write(directory, document)
    except OSError:  # a run kept on a read-only disk can still be read
        return document
    return document


def build(directory: RunDirectory) -> Document:
    """The document that the files of a run give. Raises UsageError when run.json is missing or of another schema."""
    return _built(directory, read_document(directory), {})


def read_document(directory: RunDirectory) -> Document:
    """What run.json says now; raises UsageError naming the file and what is wrong with it."""
    path = directory.document_path
    try:
        content = path.read_bytes()
        schema = msgspec.json.decode(content, type=dict[str, Any]).get("schema")
        if schema != SCHEMA:
            raise UsageError(f"RUN: {path} has schema {schema!r}; this version reads {SCHEMA}")
        return _decoded(content)
    except OSError as error:
        raise UsageError(f"RUN: cannot read {path} ({error.strerror}): what was asked for is only there") from None
    except msgspec.DecodeError as error:
        raise UsageError(f"RUN: {path} is no run.json: {error}") from None


def encode(document: Document) -> bytes:
    """The document as JSON text that people read, too."""
    return msgspec.json.format(msgspec.json.encode(document), indent=2) + b"\n"


def _built(directory: RunDirectory, before: Document, kept: Mapping[str, PlanReport]) -> Document:
    plans = [kept.get(place.name) or reduced(place, before.run) for place in directory.plan_directories()]
    document = Document(schema=SCHEMA, run=before.run, ended=before.ended, plans=plans)
    accounts = [(one.summary.label, one.summary.accounting) for one in plans if one.summary is not None]
    return concluded(msgspec.structs.replace(document, accounting=Accounting.merged(accounts) if accounts else None))


def _decoded(content: bytes) -> Document:
    return msgspec.json.decode(content, type=Document)


def _write(directory: RunDirectory, document: Document) -> None:
    directory.write("run.json", encode(document))


def _utc_now() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
