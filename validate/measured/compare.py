#!/usr/bin/env python3
"""Compares two folders of measured files row by row, e.g. two runs of orrery-bench --full on one GPU.

    validate/measured/compare.py FIRST SECOND [--tolerance 0.02] [--share 0.95]

A row agrees if all its times (medians) are within the tolerance of each other; "in cycles" is the share that agrees in
time x clock. Power rows are left out: they show how a clock moves, second by second. Exit code 0 if at least the share of
all other rows agrees, otherwise 1.
"""
import argparse
import csv
import pathlib
import signal
import sys

TIMES = {"time_us", "time_ms", "compute_alone_us", "compute_overlapped_us", "transfer_alone_us", "transfer_overlapped_us"}
# What a row found, as opposed to what it measured (the key it is matched by).
RESULTS = TIMES | {time.replace("_us", f"_{quantile}_us") for time in TIMES for quantile in ("p5", "p95")} | {
    "p5_us", "p95_us", "p5_ms", "p95_ms", "samples", "transfer_samples", "ci95_rel", "launches_per_sample", "cache",
    "sm_clock_mhz", "power_w", "temperature_c", "throttle", "error_norm", "error_row_max", "status", "reason",
    "algorithm_gb_per_s", "bus_gb_per_s", "compute_slowdown", "transfer_slowdown", "compute_ci95_rel", "transfer_ci95_rel",
    "compute_clock_alone_mhz", "compute_clock_overlapped_mhz"}
STAMPED = {"attention", "gemm", "merge", "elementwise"}  # files whose clock is stamped around every sample


def read(path):
    """The rows of a measured file that are not failed, by what they measured."""
    with open(path, newline="") as file:
        rows = csv.DictReader(line for line in file if not line.startswith("#"))
        return {tuple((k, rounded(k, v)) for k, v in row.items() if k not in RESULTS and v): row
                for row in rows if row.get("status") == "ok"}


def rounded(column, value):
    """Work in four digits: older files have it in six, newer ones exactly."""
    return f"{float(value):.4g}" if column in ("flops", "bytes") else value


def difference(first, second):
    """The largest relative difference of a time, with its sign."""
    found = [float(second[c]) / float(first[c]) - 1 for c in TIMES if first.get(c) and second.get(c)]
    return max(found, key=abs)


def clock_difference(first, second):
    """Of the SM clock, which kernel rows have from stamps around every sample and other rows from NVML."""
    if not first.get("sm_clock_mhz") or not second.get("sm_clock_mhz"):
        return None
    return float(second["sm_clock_mhz"]) / float(first["sm_clock_mhz"]) - 1


def quantile(values, q):
    values = sorted(values)
    return values[min(len(values) - 1, int(q * len(values)))] if values else 0.0


def name(key):
    boring = {"gpu", "implementation", "backend", "link", "n_gpu", "flops", "bytes", "layout", "schedule", "seq_len", "what"}
    return " ".join(v if not v.isdigit() else f"{k}={v}" for k, v in key if k not in boring or (k == "bytes" and len(key) < 9))


def compare(first, second):
    """Of every file in both folders: the rows in both with their differences, and how many are in one only."""
    for path in sorted(pathlib.Path(first).glob("*.csv")):
        other = pathlib.Path(second) / path.name
        if path.stem == "power" or path.stem.endswith("_steps") or not other.exists():
            continue
        a, b = read(path), read(other)
        pairs = [(key, difference(a[key], b[key]), clock_difference(a[key], b[key])) for key in a if key in b]
        if pairs:
            yield path.stem, pairs, len(a) + len(b) - 2 * len(pairs)


def main():
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # compare.py ... | head
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("first")
    options.add_argument("second")
    options.add_argument("--tolerance", type=float, default=0.02)
    options.add_argument("--share", type=float, default=0.95)
    options = options.parse_args()

    files = list(compare(options.first, options.second))
    if not files:
        sys.exit(f"compare.py: {options.first} and {options.second} have no row in common")
    print(f"{'file':<14} {'rows':>5} {'agree':>6} {'share':>7} {'in cycles':>10} {'median':>8} {'95 %':>8} {'largest':>8}"
          "   only in one")
    rows = agree = 0
    beyond = []
    for stem, pairs, unmatched in files:
        sizes = [abs(d) for _, d, _ in pairs]
        good = sum(s <= options.tolerance for s in sizes)
        cycles = [abs((1 + d) * (1 + clock) - 1) for _, d, clock in pairs if stem in STAMPED and clock is not None]
        in_cycles = f"{sum(c <= options.tolerance for c in cycles) / len(cycles):.1%}" if cycles else ""
        print(f"{stem:<14} {len(pairs):>5} {good:>6} {good / len(pairs):>7.1%} {in_cycles:>10} {quantile(sizes, 0.5):>8.2%} "
              f"{quantile(sizes, 0.95):>8.2%} {max(sizes):>8.2%}   {unmatched or ''}")
        rows += len(pairs)
        agree += good
        beyond += [(stem, *pair) for pair in pairs if abs(pair[1]) > options.tolerance]
    for stem, key, d, clock in sorted(beyond, key=lambda row: -abs(row[2])):
        print(f"  {d:+7.1%}  clock {'' if clock is None else format(clock, '+.1%'):>6}  {stem}: {name(key)}")
    share = agree / rows
    print(f"{agree} of {rows} rows agree within {options.tolerance:.1%}: {share:.1%}, "
          f"{'as' if share >= options.share else 'NOT as'} much as the {options.share:.0%} asked for")
    return 0 if share >= options.share else 1


if __name__ == "__main__":
    sys.exit(main())
