"""Fair timings: warmed up, by turns, summed up as median and spread."""

import time

import numpy as np
import torch


def summary(seconds):
    """The median of some timings, and the quarters below and above it."""
    low, middle, high = np.percentile(seconds, (25, 50, 75)).tolist()
    count = len(seconds)
    return {"seconds": middle, "low": low, "high": high, "count": count}


def matrix_rate(kind, size=4096):
    """Operations a second of a large matrix product, at this moment."""
    a = torch.rand(size, size).to(kind)
    a @ a  # warms up
    begin = time.perf_counter()
    a @ a
    return 2 * size**3 / (time.perf_counter() - begin)


def by_turns(functions, rounds=5, patience=10):
    """Time {name: function} by turns, so that what disturbs one disturbs all.

    The first call warms up and does not count, unless it takes longer than
    `patience` seconds: then it is the only one. No round begins when the
    rounds have taken longer than that. -> {name: summary}
    """

    def time_call(function):
        begin = time.perf_counter()
        function()
        return time.perf_counter() - begin

    first = {name: time_call(f) for name, f in functions.items()}
    times = {n: [t] if t > patience else [] for n, t in first.items()}
    begin = time.perf_counter()
    for done in range(rounds):
        if done and time.perf_counter() - begin > patience:
            break
        for name, function in functions.items():
            if first[name] <= patience:
                times[name].append(time_call(function))
    return {name: summary(values) for name, values in times.items()}
