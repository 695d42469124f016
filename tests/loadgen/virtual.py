"""A campaign performed in virtual time: the simulator's engine with no server, no clock and no socket.

What a fleet would have recorded of a plan, made by the engine from the same dues, reduced by the same `goodput_of`.
"""

import msgspec
import numpy as np
from written import exchange, summarise

from clients.errors import Outcome
from loadgen import dues
from loadgen.campaign import Performed
from loadgen.distribution import STANDARD_PERCENTILES
from loadgen.goodput import goodput_of
from loadgen.percentiles import describe
from loadgen.recorded import HEAD
from loadgen.simulator.capacity import closed_loop_throughput
from loadgen.simulator.engine import Engine, Sequence
from loadgen.simulator.settings import load_settings
from loadgen.stretch import Stretch
from loadgen.summary import Verdict

T0 = 1_000_000_000  # ns: any instant but 0, which means "did not happen"


class Workload:
    """A profile's server and what it is sent: equal requests, no prefix shared, every answer at its full length."""

    def __init__(self, model, prompt_tokens, output_tokens, image_pixels=0, **settings):
        self.settings = load_settings(model, **settings)
        self.request = (prompt_tokens, output_tokens)
        self.pixels = image_pixels

    def heads(self, offsets_ns):
        """What is recorded of requests that arrive at these times, one row each."""
        engine, count = Engine(self.settings), len(offsets_ns)
        heads = np.zeros(count, HEAD)
        due = (offsets_ns + T0).tolist()
        first, last = [0] * count, [0] * count
        sent = done = 0
        while done < count:
            end_ns = engine.next_step_end()
            if end_ns is None or (sent < count and due[sent] <= end_ns):
                engine.submit(due[sent], Sequence(*self.request, image_pixels=self.pixels, owner=sent))
                sent += 1
                continue
            for emission in engine.advance(end_ns):
                if not emission.token:
                    first[emission.sequence.owner] = end_ns
                if emission.finished:
                    last[emission.sequence.owner] = end_ns
                    done += 1
        heads["due_ns"] = heads["sent_ns"] = due
        heads["first_output_ns"], heads["last_output_ns"], heads["end_ns"] = first, last, last
        heads["outcome"], heads["first_event_tokens"] = Outcome.OK, 1
        heads["completion_tokens"] = heads["events"] = self.request[1]
        return heads

    def goodput(self, schedule, count, objectives, attainment, lead_s=0.0):
        """Of an open loop of `count` requests, those due in the first `lead_s` left out; and the heads."""
        heads = self.heads(dues.offsets_ns(schedule, count=count))
        begin, end = T0 + round(lead_s * 1e9), int(heads["due_ns"][-1]) + 1
        return goodput_of(heads, Stretch(begin, end), objectives, attainment), heads

    def throughput(self, concurrency, requests):
        return closed_loop_throughput(self.settings, concurrency, *self.request, requests, self.pixels)


class VirtualSession:
    """Performs a campaign's plans against a workload's engine. `took_s` of each is its virtual time."""

    def __init__(self, directory, workload, objectives, attainment):
        self.workload, self.objectives, self.attainment = workload, objectives, attainment
        self._template = summarise(directory, [(k, exchange(10 * k, 10 * k + 10)) for k in range(5)], max_concurrent=1)
        self.history = []

    def conduct(self, campaign):
        while (plan := campaign.next_plan(self.history)) is not None:
            self.history.append(self.performed(plan))
        return self.history

    def performed(self, plan):
        if plan.schedule is None:
            rps = self.workload.throughput(plan.max_concurrent, plan.num_requests)
            measures = msgspec.structs.replace(self._template.whole, requests_rps=rps, end_s=plan.num_requests / rps)
            goodput = None
        else:
            goodput, heads = self.workload.goodput(plan.schedule, plan.num_requests, self.objectives, self.attainment, plan.lead_s)
            span_s = (heads["end_ns"].max() - T0) / 1e9
            measures = msgspec.structs.replace(
                self._template.whole,
                requests_rps=len(heads) / span_s,
                end_s=span_s,
                latency=describe((heads["end_ns"] - heads["due_ns"]) / 1e9, STANDARD_PERCENTILES),
            )
        summary = msgspec.structs.replace(self._template, whole=measures, steady=None, goodput=goodput)
        return Performed(plan=plan, summary=summary, verdict=Verdict(level="valid", reasons=[]), took_s=measures.end_s)
