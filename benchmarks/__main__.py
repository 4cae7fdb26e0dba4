"""Measure, print, and keep the record that chapter 14 shows.

python -m benchmarks             all that `make bench` measures
python -m benchmarks SECTION...  some of it; also: quality
"""

import datetime
import functools
import shutil
import sys

from accelerate import PartialState

from benchmarks import attempts, machine, tools
from benchmarks.account import account
from benchmarks.quality import quality
from benchmarks.steps import (
    MEASURES,
    SRGAN_MEASURES,
    Way,
    alone,
    configuration,
    time_ways,
    worker_counts,
)
from srgan_lib.config import workspace
from srgan_lib.experiments import RECORDS
from srgan_lib.files import read_json, write_json
from srgan_lib.training import native_precision

RECORD = RECORDS / "bench.json"
NETWORKS = ("srresnet", "srgan")


def our_measures(network):
    """All that ours takes to train a network on this machine."""
    away = set()
    if native_precision() != "bf16":
        away.add("bf16")
    if network == "srresnet":
        away.update(SRGAN_MEASURES)
    return frozenset(MEASURES) - away


def ours(network, profile, **options):
    measures = our_measures(network)
    return Way(network, measures, library=True, profile=profile, **options)


def steps(network, profile, rounds=3):
    """A step the usual way, ours, and with each measure alone or left out."""

    def way(measures=frozenset(), **options):
        options = {"rounds": rounds} | options
        return Way(network, measures, profile=profile, **options)

    brief = {"rounds": 1, "warm": 1, "timed": 3}
    by_workers = time_ways(
        {str(n): way(workers=n, **brief) for n in worker_counts()}
    )
    workers = int(min(by_workers, key=lambda n: by_workers[n]["seconds"]))
    measures = our_measures(network)
    ways = {
        "usual": way(workers=workers),
        "ours": ours(network, profile, rounds=rounds),
        "ours in fp32": way(measures - {"bf16"}, library=True),
        "all measures": way(measures),
    }
    for measure in sorted(measures, key=MEASURES.index):
        one = frozenset([measure])
        ways[f"only {measure}"] = way(one, workers=workers, **brief)
        ways[f"without {measure}"] = way(
            measures - one, workers=workers, rounds=1
        )
    return {
        "workers": workers,
        "by workers": by_workers,
        "ways": time_ways(ways),
    }


def with_attempts(network, profile, names, rounds=3):
    """Ours, and ours with each of these changes."""
    ways = {"ours": ours(network, profile, rounds=rounds)}
    for name in names:
        ways[name] = ours(network, profile, rounds=rounds, attempt=name)
    return time_ways(ways)


def tried(profile):
    """What was tried and not kept; what each saving of SRGAN's gives."""
    return {
        "srresnet": with_attempts("srresnet", profile, attempts.PRELUS),
        "srgan": with_attempts("srgan", profile, attempts.UNDONE),
    }


def compiled(profile):
    """torch.compile on top of ours, where there is a C++ compiler."""
    if shutil.which("c++") is None:
        return {}
    return {
        network: with_attempts(network, profile, ["torch.compile"])
        for network in NETWORKS
    }


def each_network(function):
    return lambda profile: {n: function(n, profile) for n in NETWORKS}


SECTIONS = {
    "limits": lambda profile: machine.limits(),
    "operations": machine.operations,
    "steps": each_network(steps),
    "tried": tried,
    "compiled": compiled,
    # Where freed memory is kept, which would change what comes after.
    "account": each_network(functools.partial(alone, account)),
    "crops": tools.data_path,
    "resizing": lambda profile: tools.resizing(tools.photograph()),
    "measuring": lambda profile: tools.measuring(tools.photograph()),
    "upscaling": lambda profile: tools.upscaling(tools.photograph(), profile),
}
ON_REQUEST = {"quality": quality}


def timings(table):
    """Lines of {label: summary}: median, spread, ratio to ours."""
    base = table.get("ours", next(iter(table.values())))["seconds"]
    for label, row in table.items():
        yield (
            f"  {label:36}{1e3 * row['seconds']:10.1f} ms  "
            f"({1e3 * row['low']:.1f} to {1e3 * row['high']:.1f})  "
            f"{row['seconds'] / base:7.2f} x ours"
        )


def show(value, indent=0):
    """Any part of the record, for the terminal."""
    space = "  " * indent
    if isinstance(value, dict) and value:
        if all(isinstance(v, dict) and "low" in v for v in value.values()):
            return list(timings(value))
        lines = []
        for key, part in value.items():
            inner = show(part, indent + 1)
            single = len(inner) == 1 and not isinstance(part, dict)
            lines += (
                [f"{space}{key}: {inner[0]}"]
                if single
                else [f"{space}{key}", *inner]
            )
        return lines
    if isinstance(value, list):  # an account
        return [
            f"{space}{row['part'] + ', ' + row['kind']:44}"
            f"{1e3 * (row['forward'] + row['backward']):10.1f} ms"
            for row in value
        ]
    return [f"{value:,.4g}" if isinstance(value, float) else str(value)]


def shares(record):
    """Lines: how near our steps come to the rate of a matrix product."""
    for network in NETWORKS:
        row = record["steps"][network]["ways"]["ours"]
        rate = record["operations"][network] / row["seconds"]
        yield f"{network}: {rate / row['matrix']:.0%} of a matrix product"


def main(names=(), profile="reference", path=RECORD):
    """Measure some sections, or all of SECTIONS, into the record.

    A new record waits in runs/ until it is whole, as chapter 14 needs it.
    """
    if (device := PartialState().device).type != "cpu":
        sys.exit(
            f"This measures a processor, but training takes {device} here; "
            "CUDA_VISIBLE_DEVICES= hides a GPU."
        )
    for name in names:
        if name not in SECTIONS | ON_REQUEST:
            sys.exit(
                f"There is no section {name}; take some of "
                f"{', '.join(SECTIONS | ON_REQUEST)}."
            )
    here = machine.describe()
    begun = workspace() / "runs" / "bench" / path.name
    found = read_json(begun), read_json(path)
    record = next(  # never mix two machines
        (r for r in found if r.get("machine") == here), {"machine": here}
    )
    record["images"] = configuration().train_sets[0]
    made = record.setdefault("made", {})  # when each section was measured
    for name in names or SECTIONS:
        print(f"== {name}", flush=True)
        record[name] = (SECTIONS | ON_REQUEST)[name](profile)
        now = datetime.datetime.now(datetime.UTC)
        made[name] = f"{now:%Y-%m-%d %H:%M}"
        write_json(begun, record)
        print(*show(record[name]), sep="\n", flush=True)
        if name == "steps" and "operations" in record:
            print(*shares(record), sep="\n", flush=True)
    if lacking := [name for name in SECTIONS if name not in record]:
        print(f"{begun} lacks {', '.join(lacking)}; chapter 14 waits for it.")
    else:
        write_json(path, record)
        begun.unlink()
        print(f"The record is {path}; chapter 14 shows it.")


if __name__ == "__main__":
    main(sys.argv[1:])
