"""Fair timings: warmed up, by turns, summed up as median and spread."""

import time

import numpy as np


def summary(seconds):
    """The median of some timings, and the quarters below and above it."""
    low, middle, high = np.percentile(seconds, (25, 50, 75)).tolist()
    count = len(seconds)
    return {"seconds": middle, "low": low, "high": high, "count": count}


def by_turns(functions, rounds=5, patience=30, warm=True):
    """Time {name: function} by turns, so that what disturbs one disturbs all.

    Each is first called once without being timed, if `warm`. No new round
    begins after `patience` seconds. -> {name: summary}
    """
    times = {name: [] for name in functions}
    for function in functions.values() if warm else ():
        function()
    begin = time.perf_counter()
    for done in range(rounds):
        if done > 0 and time.perf_counter() - begin > patience:
            break
        for name, function in functions.items():
            start = time.perf_counter()
            function()
            times[name].append(time.perf_counter() - start)
    return {name: summary(values) for name, values in times.items()}
