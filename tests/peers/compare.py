"""What a client costs and what it reports, beside others, against one C server.

    .venv/bin/python tests/peers/compare.py [--rounds 5] [--work events|requests|first-tokens] [--clients wire,aiohttp,…]

Knows rounds, differences and tables; knows nothing of how a client is called (`peers.py`), what it reports (`reported.py`), or how
processes are placed and CPU is counted (`rig.py`). Each round runs every client in turn, with few and with many requests; the difference
divides out start-up, so a cost is marginal: (cpu_big - cpu_small) / (work_big - work_small). Work is what the server counted, never what
the client says. Of paced streams, TTFT and ITL as reported are set beside what the server did in the same run. Medians [smallest ..
largest] over the rounds, and each round's ratio to the first client named: a figure in microseconds from a shared machine means little,
a ratio within one round more.

Needs gcc, two cores, and the network once: vLLM's wheel (0.5 GB, of which one binary is kept) and locust, in a venv of its own. Python's
`vllm bench serve` is compared where LOADGEN_VLLM_PYTHON names an interpreter that has it, wrk where it is installed.
"""

import argparse
import tempfile
from pathlib import Path
from typing import NamedTuple

import reported
import rig
from peers import CLIENTS, Absent, Load


class Work(NamedTuple):
    """One kind of work: the server's options, few and many requests, what is counted, and whom it can be asked of."""

    server: str
    small: int
    big: int
    unit: str
    concurrency: int
    tokens: int
    stream: bool
    clients: str


WORKS = {
    # One event per read: 512 streams of 128 tokens, one each 20 ms.
    "events": Work("--ttft-ms 200 --itl-us 20000", 128, 2176, "events", 512, 128, True, "vllm-rs,vllm,wire,aiohttp,plain-loop,locust"),
    # Answers at once, not streamed. `bench serve` always streams a chat.
    "requests": Work("", 2000, 22000, "requests", 64, 128, False, "plain-loop,wire,aiohttp,locust,wrk"),
    # A stream of one token: what `bench serve` can do of a request alone.
    "first-tokens": Work("", 2000, 12000, "requests", 64, 1, True, "vllm-rs,vllm,wire,aiohttp,plain-loop,locust"),
}


class Seen(NamedTuple):
    """One run: what it cost, what the server counted and did, and what the client reports under each of its names."""

    cost: rig.Cost
    work: int
    requests: int
    in_flight: int
    did: reported.Reported
    reports: dict


def run(name, work, requests):
    """One client against a server of its own."""
    client = CLIENTS[name]
    with rig.Server(work.server) as server, tempfile.TemporaryDirectory(dir=rig.WORK) as directory:
        load = Load(server.url, Path(directory), requests, work.concurrency, work.tokens, work.stream)
        with open(rig.WORK / f"{name}.log", "wb") as log:
            cost = rig.run(client.words(load), log)
        stats = server.ask("/stats")
        served = stats["stream"] + stats["nonstream"]
        # 3: at full speed our own verdict is client-limited, as it should be; its cost is what is measured here
        if cost.status not in (0, 3 if name in ("wire", "aiohttp") else 0) or (served < requests and name != "wrk"):
            raise SystemExit(f"{name} ended with {cost.status}, {served} of {requests} requests served: see {log.name}")
        reports = {label: read(load.directory) for label, read in client.reports.items()} if paced(work) else {}
    count = served if work.unit == "requests" else stats["content_events"]
    return Seen(cost, count, served, stats["inflight_max"], reported.by_server(stats), reports)


def paced(work):
    """Whether the server has a pace of its own to be reported: where answers come at once, times are the client's cost again."""
    return bool(work.server)


def ready(names):
    """The clients that can be had here -> what they are; the others are named and left out."""
    titles = {}
    for name in names:
        try:
            titles[name] = CLIENTS[name].ready()
        except Absent as absent:
            print(f"without {name}: {absent}", flush=True)
    return titles


def measure(names, work, rounds):
    """Marginal cost in microseconds, and the big run, of each client in each round."""
    costs, runs = ({name: [] for name in names} for _ in range(2))
    for number in range(rounds):
        for name in names:
            small, big = (run(name, work, requests) for requests in (work.small, work.big))
            costs[name].append(1e6 * (big.cost.cpu_s - small.cost.cpu_s) / (big.work - small.work))
            runs[name].append(big)
            print(
                f"round {number} {name:10} {costs[name][-1]:8.2f} us  served {big.requests}, in flight {big.in_flight}, "
                f"CPU {small.cost.cpu_s:.2f} s and {big.cost.cpu_s:.2f} s, {big.cost.rss_mb} MB",
                flush=True,
            )
    return costs, runs


def table(head, rows):
    """Markdown, as it stands in results/peers.md."""
    print("\n| " + " | ".join(head) + " |\n|" + "---|" * len(head))
    for row in rows:
        print("| " + " | ".join(cell if isinstance(cell, str) else rig.spread(cell).strip() for cell in row) + " |")


def cost_rows(titles, costs):
    first = next(iter(costs.values()))
    for name, values in costs.items():
        yield titles[name], values, [value / yardstick for value, yardstick in zip(values, first, strict=True)]


def report_rows(titles, runs, metric):
    """What is reported, what the server did in the same run, and the difference run by run; p50 and p99."""
    for name, seen in runs.items():
        said = {label: [getattr(one.reports[label], metric) for one in seen] for label in CLIENTS[name].reports}
        did = [getattr(one.did, metric) for one in seen]
        if metric == "itl_ms":  # a gap between arrivals is the same from due and from sent
            said = {"": next(iter(said.values()))}
        for label, values in said.items():
            cells = []
            for says, does in zip(zip(*values, strict=True), zip(*did, strict=True), strict=True):
                cells += [says, does, [a - b for a, b in zip(says, does, strict=True)]]
            yield ", ".join(filter(None, [titles[name], label])), *cells


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--work", choices=WORKS, default="events")
    parser.add_argument("--clients", help="comma-separated; the first is the one that ratios are to")
    parser.add_argument("--big", type=int, help="requests of the big run (default: the work's own); fewer show only that all works")
    arguments = parser.parse_args()
    work = WORKS[arguments.work]
    work = work._replace(big=arguments.big or work.big)
    names = (arguments.clients or work.clients).split(",")
    if strange := set(names) - set(work.clients.split(",")):
        parser.error(f"--clients {','.join(strange)}: {arguments.work} can be asked of {work.clients}")
    rig.server_binary()
    titles = ready(names)
    if not titles:
        parser.error("none of these clients can be had here")
    costs, runs = measure(list(titles), work, arguments.rounds)
    table(["client", f"µs per {work.unit.removesuffix('s')}", "ratio"], cost_rows(titles, costs))
    for metric in ("ttft_ms", "itl_ms") if paced(work) else ():
        name = metric.removesuffix("_ms").upper()
        head = [f"{name} {what}, p{percent}" for percent in reported.PERCENTS for what in ("reported", "of the server", "difference")]
        table(["client, ms", *head], report_rows(titles, runs, metric))


if __name__ == "__main__":
    main()
