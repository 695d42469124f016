"""What `serve-bench` sends: the data sets of `vllm bench serve`, made the way vLLM makes them.

Knows texts, lengths, images and files; must not know servers, plans or rates.
"""
