"""Series whose truth is known: what the tests of intervals and of steadiness draw from. Each row is a series of its own."""

import numpy as np
from scipy.signal import lfilter


def independent(seed, rows, n):
    """Exponential with mean 1."""
    return np.random.default_rng(seed).exponential(size=(rows, n))


def autoregressive(seed, rows, n, phi):
    """AR(1), standard normal at each time."""
    noise = np.random.default_rng(seed).normal(size=(rows, n)) * np.sqrt(1 - phi**2)
    noise[:, 0] /= np.sqrt(1 - phi**2)
    return lfilter([1], [1, -phi], noise, axis=1)


def queue(seed, rows, n, load, warm=2_000):
    """Times in an M/M/1 queue of this load, arrivals at a rate of 1: exponential with mean load / (1 - load) (Lindley's recursion)."""
    generator = np.random.default_rng(seed)
    service = generator.exponential(load, (rows, n + warm))
    ahead = np.cumsum(service[:, :-1] - generator.exponential(1.0, (rows, n + warm - 1)), axis=1)
    ahead = np.concatenate((np.zeros((rows, 1)), ahead), axis=1)
    return (ahead - np.minimum.accumulate(ahead, axis=1) + service)[:, warm:]
