#!/usr/bin/env python3
"""Makes one CSV of those that several runs of torch_context_parallel.py wrote on one host, for `orrery validate`.

    for i in 1 2 3 4 5; do torchrun --nproc-per-node=2 validate/peers/torch_context_parallel.py -o run_$i.csv; done
    validate/peers/median_of_processes.py run_*.csv -o torch_context_parallel.csv

Where the host decides, every process has its own speed from its start to its end: the interval of the samples of one process
says little about the next one. So a sample here is a process: `time_ms` is the median of their medians, `p5_ms` and
`p95_ms` are quantiles of them, `samples` counts them, and `processes_ms` has them all in the order of the files. A row
that failed once is left as failed. Exits with 2 if the files are not of the same GPUs, software and rows.
"""
import argparse
import csv
import statistics
import sys

SAME = ("gpu", "gpus", "driver", "torch", "cuda", "cudnn", "nccl", "nccl_nvls_enable", "host_cores")
VALUES = ("time_ms", "p5_ms", "p95_ms", "samples", "ci95_rel", "error_norm", "status", "reason")


def read(path):
    """The header's keys and values, and the rows by what they measured."""
    with open(path, newline="") as file:
        lines = file.read().splitlines()
    header = dict(line[2:].split(" = ", 1) for line in lines if line.startswith("# "))
    rows = {}
    for row in csv.DictReader(line for line in lines if not line.startswith("#")):
        key = tuple((name, value) for name, value in row.items() if name not in VALUES)
        if key in rows:
            raise ValueError(f"{path}: two rows of {dict(key)}")
        rows[key] = row
    if not rows:
        raise ValueError(f"{path}: no rows")
    return header, rows


def quantile(values, p):
    ordered = sorted(values)
    return ordered[int(p * (len(ordered) - 1) + 0.5)]


def merged(rows):
    """One row of those that several processes measured."""
    failed = [row for row in rows if row["status"] != "ok"]
    if failed:
        return {**failed[0], "processes_ms": ""}
    times = [float(row["time_ms"]) for row in rows]
    return {**rows[0], "time_ms": f"{statistics.median(times):.6g}", "p5_ms": quantile(times, 0.05),
            "p95_ms": quantile(times, 0.95), "samples": len(times), "ci95_rel": "",
            "error_norm": max((row["error_norm"] for row in rows), key=float),
            "processes_ms": " ".join(row["time_ms"] for row in rows)}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="+")
    parser.add_argument("-o", "--output", required=True)
    args = parser.parse_args()
    try:
        runs = [read(path) for path in args.files]
        for path, (header, rows) in zip(args.files, runs):
            for key in SAME:
                if header.get(key) != runs[0][0].get(key):
                    raise ValueError(f"{path}: {key} = {header.get(key)} (but {runs[0][0].get(key)} in {args.files[0]})")
            if rows.keys() != runs[0][1].keys():
                raise ValueError(f"{path}: other rows than in {args.files[0]} (did a run end early?)")
        header = {**runs[0][0], "processes": len(runs), "how": runs[0][0]["how"] + "; median of processes, one after the other"}
        with open(args.output, "w", newline="") as out:
            out.writelines(f"# {key} = {value}\n" for key, value in header.items())
            first = next(iter(runs[0][1].values()))
            writer = csv.DictWriter(out, [*first, "processes_ms"], lineterminator="\n")
            writer.writeheader()
            writer.writerows(merged([rows[key] for _, rows in runs]) for key in runs[0][1])
    except (OSError, KeyError, ValueError) as error:
        print(f"median_of_processes.py: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
