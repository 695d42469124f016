"""Writes docs/serve-bench.md from the table of flags: `python scripts/describe_serve_bench.py > docs/serve-bench.md`.

Knows the page's words; the flags are `loadgen/serve_bench_options.py`'s. A test compares the file with what this writes.
"""

from loadgen.serve_bench_options import table

_PAGE = """# loadgen serve-bench

Written by `python scripts/describe_serve_bench.py`; do not edit. For those who have a command line of `vllm bench serve`: change the first words.

```
vllm bench serve    --backend openai-chat --endpoint /v1/chat/completions --model my-model --request-rate 20 --num-prompts 500 --save-result
loadgen serve-bench --backend openai-chat --endpoint /v1/chat/completions --model my-model --request-rate 20 --num-prompts 500 --save-result
```

The flags (underscores, too), their defaults, the block that is printed and the keys of the result file are vLLM 0.32's. The requests are sent by
`loadgen`'s workers from one schedule, each is recorded, and below vLLM's block stands our verdict. The exit status is the verdict's: 0, 3 when
the numbers may not be believed, 2 for a flag that is refused, 5 for a server that cannot be used. A flag is never ignored: one that would have no effect, or that
belongs to another data set, is refused by its name.

## What the numbers are

As vLLM's: latency runs from the moment a request is sent and ends with its last output; TPOT is (latency - TTFT) / (output tokens - 1); ITL is between
events; percentiles are NumPy's with linear interpolation, `std` is the population's; `max_output_tokens_per_s` counts output events in whole seconds since the first request was
sent, `max_concurrent_requests` the requests that had some part in one of those. `client_queue_time` is what `--max-concurrency` held a request back for: from its due to being sent, and of
an infinite rate from the beginning, since vLLM's client holds all requests at once; `e2el_including_client_queue` is latency and queue together.

Not as vLLM's:

* A chunk without output (one that names the role, or is empty) is no token, in TTFT, ITL and TPOT.
* Events are stamped when they arrive, before anything is parsed; those of one read have one stamp, and their ITL is 0.
* Spaces at the edges of reads are kept, and streams with CRLF are read: both cost vLLM's client tokens.
* What was not measured is `null` (`n/a` in the block), not 0. A successful request without any output has no TTFT.
* Success needs a finish reason for every choice: a stream that only ends is a failure.
* `duration` is from the start instant to the last end; tokens without the server's usage are counted as events.
* `generated_texts` are `null`: a worker that measures keeps no text.
* `SAVE_TO_PYTORCH_BENCHMARK_FORMAT` writes nothing.

## Data sets

`random`, `random-mm`, `sharegpt` and `custom`. With the same tokenizer and seed they are the requests that vLLM's client makes, text by text. Without a tokenizer
three probes of one token each ask the server how long prompts are (`usage.prompt_tokens`), and prompts are words, as many as come to the length, with
an error of a few percent. A chat's template comes on top of the length, as in vLLM. What was really sent is in `total_input_tokens`, by the server's count.
vLLM asks the server to tokenize random prompts and cuts those that are too long; here they go as they are.

```
pip install 'loadgen[tokenizers]'
```

## Flags

"""


def described() -> str:
    """The whole page."""
    return _PAGE + table()


if __name__ == "__main__":
    print(described(), end="")
