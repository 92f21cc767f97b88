"""Turns the figures of Echo.scala into the rows and the JSON of benches/peers. Started by `run` beside this file."""

import json
import sys

KEYS = ["rate_per_s", "p50_ns", "p90_ns", "p99_ns", "p999_ns", "p9999_ns", "max_ns"]


def scaled(value, units):
    """Three digits and a unit."""
    unit = 0
    while value >= 999.5 and unit + 1 < len(units):
        value, unit = value / 1000, unit + 1
    digits = 2 if value < 9.995 else 1 if value < 99.95 else 0
    return f"{value:.{digits}f} {units[unit]}"


def time(nanos):
    return scaled(nanos, ["ns", "us", "ms", "s"])


def rate(per_second):
    return scaled(per_second, ["/s", "k/s", "M/s"])


def median(samples, window):
    """The median round, by p50 with one ask in flight and by rate with more; of an even number the better one."""
    by_p50 = sorted(samples, key=lambda sample: sample["p50_ns"])
    by_rate = sorted(samples, key=lambda sample: -sample["rate_per_s"])
    return (by_p50 if window == 1 else by_rate)[(len(samples) - 1) // 2]


def record(window, samples):
    chosen = median(samples, window)
    return {
        "system": "spark",
        "path": "tcp",
        "idle": "park",
        "cores": 2,
        "alone": False,
        "connections": 1,
        "window": window,
        "offered_per_s": None,
        "offered_share": None,
        "late": None,
        "unsent": None,
        "payload": 64,
        "exchange": "echo",
        "mb_per_s": chosen["rate_per_s"] * 64 / 1e6,
        **chosen,
        "allocs_per_op": None,
        "enters_per_op": None,
        "rounds": len(samples),
        "rate_min_per_s": min(sample["rate_per_s"] for sample in samples),
        "rate_max_per_s": max(sample["rate_per_s"] for sample in samples),
        "p50_min_ns": min(sample["p50_ns"] for sample in samples),
        "p50_max_ns": max(sample["p50_ns"] for sample in samples),
    }


def row(r):
    return (
        f"{r['path']:<5} {r['window']:>6} {r['system']:<15} {r['idle']:<8} | {time(r['p50_ns']):>9}  "
        f"{time(r['p50_min_ns']):>9} .. {time(r['p50_max_ns']):<9} {time(r['p99_ns']):>9} | {rate(r['rate_per_s']):>9}  "
        f"{rate(r['rate_min_per_s']):>8} .. {rate(r['rate_max_per_s']):<9} |"
    )


def main(version, file=None):
    rounds = {}
    for line in sys.stdin:
        window, *figures = (int(figure) for figure in line.split())
        rounds.setdefault(window, []).append(dict(zip(KEYS, figures)))
    records = [record(window, samples) for window, samples in rounds.items()]
    print(f"Spark {version}, 64-byte payload, 1 connection, median of {records[0]['rounds']} interleaved rounds")
    print("path  window system          idle     |       p50  (min .. max)            p99 |      rate  (min .. max)         |")
    print("--------------------------------------+----------------------------------------+---------------------------------+")
    for r in records:
        print(row(r))
    if file:
        with open(file, "w") as out:
            json.dump(records, out, indent=2)
            out.write("\n")


main(*sys.argv[1:])
