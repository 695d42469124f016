"""What a simulated server can do, from virtual time alone: no server, no clock, no socket.

Knows the engine. Law: a pure function of its arguments; acceptance tests hold a measured knee against it.
"""

from loadgen.simulator.engine import Engine, Sequence
from loadgen.simulator.settings import SimulatorSettings


def closed_loop_throughput(
    settings: SimulatorSettings,
    concurrency: int,
    prompt_tokens: int,
    output_tokens: int,
    requests: int,
    image_pixels: int = 0,
    turnaround_ns: int = 1,
) -> float:
    """Requests per second of `concurrency` clients, each sending its next request `turnaround_ns` after its last answer.

    Prompts share no prefix. Steady state: at least `requests` completions are timed, after `concurrency` completions that are not.
    Equal requests end in the same step, many at a time, so the time runs from one step's end to another's and counts whole steps.
    A client's next request arrives after the step that answered it, so it never joins the step that starts there.
    """
    engine = Engine(settings)
    for _ in range(concurrency):
        engine.submit(0, Sequence(prompt_tokens, output_tokens, image_pixels=image_pixels))
    begun_ns, done = 0, 0
    while True:
        end_ns = engine.next_step_end()
        assert end_ns is not None, "a closed loop never runs dry"
        finished = 0
        for emission in engine.advance(end_ns):
            if emission.finished:
                finished += 1
                engine.submit(end_ns + turnaround_ns, Sequence(prompt_tokens, output_tokens, image_pixels=image_pixels))
        done += finished
        if finished and not begun_ns and done >= concurrency:
            begun_ns, done = end_ns, 0
        elif finished and begun_ns and done >= requests:
            return done / ((end_ns - begun_ns) / 1e9)
