#!/usr/bin/env python3
"""The tables of README.md that compare the measured files with public numbers and with each other, from the files.

    validate/measured/tables.py           prints them
    validate/measured/tables.py --check   exits with 1 if README.md has other ones
"""
import csv
import math
import pathlib
import sys

sys.dont_write_bytecode = True  # the folder is for data
import compare

HERE = pathlib.Path(__file__).parent

# NVIDIA's runs of cuDNN 9.19.1 on H200, ms; bf16, batch 1, 64 query and 8 key heads, d = 128:
# github.com/NVIDIA/cudnn-frontend, benchmark/sdpa_benchmark_training/results/h200_919_only_cudnn.
CUDNN_H200_MS = {
    ("causal", "forward"): {2048: 0.142, 4096: 0.465, 8192: 1.708, 16384: 6.531, 32768: 25.566},
    ("causal", "backward"): {2048: 0.464, 4096: 1.450, 8192: 5.083, 16384: 19.002, 32768: 75.688},
    ("full", "forward"): {2048: 0.217, 4096: 0.819, 8192: 3.182, 16384: 12.524, 32768: 50.769},
    ("full", "backward"): {2048: 0.681, 4096: 2.453, 8192: 9.262, 16384: 35.947, 32768: 153.841},
}
# Useful TFLOP/s on H100: cuDNN and FlashAttention-3 in its paper (arXiv 2407.08608, 16K tokens, hidden size 2048), and for
# the windows TransformerEngine's cuDNN and FA3 in the MagiAttention benchmark (github.com/SandAI-org/MagiAttention, 32K,
# 64:8 heads). None: not published.
H100_TFLOPS = [  # mask, pass, head_dim, heads, n, cuDNN, FA3
    ("full", "forward", 128, 16, 16384, 595, 648), ("causal", "forward", 128, 16, 16384, 539, 616),
    ("full", "backward", 128, 16, 16384, 516, 561), ("full", "forward", 64, 32, 16384, 413, 497),
    ("causal", "forward", 64, 32, 16384, 388, 473), ("window", "forward", 128, 64, 32768, 393, 523),
    ("window", "backward", 128, 64, 32768, 281, 332)]
MIB = (1, 4, 16, 64, 128, 256, 512)
# aiconfigurator's collected nccl-tests rows of H200 (NCCL 2.29.2, us), by number of GPUs and MiB as nccl-tests count them:
# github.com/ai-dynamo/aiconfigurator, systems/data/h200_sxm/comm/nccl/2.29.2.
NCCL_H200_US = {
    2: {
        "all_gather": (11.3, 26.4, 54.1, 155.8, 288.5, 544.8, 1041.9),
        "reduce_scatter": (10.4, 23.4, 50.6, 163.9, 305.0, 581.7, 1083.5),
        "all_to_all": (13.5, 19.8, 51.8, 137.2, 251.5, 470.3, 901.7),
        "all_reduce": (14.3, 32.4, 76.2, 248.3, 463.0, 885.8, 1703.9),
    },
    4: {
        "all_gather": (13.5, 35.9, 63.9, 188.4, 344.5, 660.3, 1271.7),
        "reduce_scatter": (11.7, 32.8, 58.0, 188.7, 348.8, 668.7, 1294.1),
        "all_to_all": (14.5, 23.0, 64.8, 185.2, 341.9, 652.5, 1262.4),
        "all_reduce": (18.1, 39.8, 98.8, 323.3, 612.2, 1180, 2311),
    },
}


def read(name):
    with open(HERE / name, newline="") as file:
        return [row for row in csv.DictReader(line for line in file if not line.startswith("#")) if row["status"] == "ok"]


def attention(rows, mask, which, heads, head_dim, n, regime):
    for row in rows:
        found = (row["mask"], row["pass"], row["heads"], row["head_dim"], row["n_q"], row["n_k"], row["regime"])
        if found == (mask, which, str(heads), str(head_dim), str(n), str(n), regime):
            if mask != "window" or row["window"] == "1024":
                return row
    return None


def rate(row):
    return float(row["flops"]) / float(row["time_ms"]) * 1e-9


def published_runs(rows):
    yield "| mask, pass | n | public ms | burst ms / TFLOP/s | differs | MHz | sustained ms / TFLOP/s | differs | MHz |"
    yield "|---|---|---|---|---|---|---|---|---|"
    for (mask, which), times in CUDNN_H200_MS.items():
        for n, public in times.items():
            cells = f"| {mask} {which} | {n // 1024}K | {public:.3f} |"
            for regime in ("burst", "sustained"):
                row = attention(rows, mask, which, 64, 128, n, regime)
                if row:
                    ms = float(row["time_ms"])
                    cells += f" {ms:.3f} / {rate(row):.0f} | {ms / public - 1:+.1%} | {float(row['sm_clock_mhz']):.0f} |"
                else:
                    cells += "  |  |  |"
            yield cells


def h100_runs(rows):
    yield "| TFLOP/s | cuDNN, H100 | FA3, H100 | here, burst | here, sustained |"
    yield "|---|---|---|---|---|"
    for mask, which, head_dim, heads, n, cudnn, fa3 in H100_TFLOPS:
        here = [rate(attention(rows, mask, which, heads, head_dim, n, regime)) for regime in ("burst", "sustained")]
        yield f"| d {head_dim} {mask} {which} | {cudnn} | {fa3} | {here[0]:.0f} | {here[1]:.0f} |"


def collectives(rows, gpus):
    yield f"| us on {gpus} GPUs, by MiB | " + " | ".join(map(str, MIB)) + " |"
    yield "|---|" + "---|" * len(MIB)
    def step(size):  # sizes are sqrt(2) apart, and written with six digits
        return round(2 * math.log2(size))

    times = {(row["op"], step(float(row["bytes"]))): float(row["time_us"]) for row in rows if row["channels"] == "auto"}
    for op, public in NCCL_H200_US[gpus].items():
        yield f"| {op}, public | " + " | ".join(f"{us:.1f}" for us in public) + " |"
        share = gpus if op in ("all_gather", "reduce_scatter") else 1  # ours count a rank's shard
        here = [times[op, step((mib << 20) / share)] for mib in MIB]
        yield f"| {op}, here | " + " | ".join(f"{us:.1f} ({us / p - 1:+.1%})" for us, p in zip(here, public)) + " |"


RING_TOKENS = (1024, 2048, 4096, 8192, 16384)


def rings(files):
    """Exact rings of 32 heads of 128 by layout and transport, forward and backward together."""
    yield "| ms, tokens per GPU | " + " | ".join(f"{n // 1024}K" for n in RING_TOKENS) + " |"
    yield "|---|" + "---|" * len(RING_TOKENS)
    for gpus, rows in files.items():
        times = {(r["layout"] if r["causal"] == "true" else "full", r["transport"], int(r["tokens_per_gpu"])): r["time_ms"]
                 for r in rows if r["implementation"] == "orrery_ring" and r["pass"] == "forward_backward"
                 and (r["heads"], r["kv_heads"], r["head_dim"]) == ("32", "32", "128") and r["channels"] in ("", "auto")}
        for mask in ("full", "contiguous", "striped", "zigzag"):
            for transport in ("copy_engine", "nccl"):
                cells = " | ".join(f"{float(times[mask, transport, n]):.3g}" for n in RING_TOKENS)
                yield f"| {gpus} GPUs, {mask if mask == 'full' else mask + ' causal'}, {transport} | {cells} |"


def agreement(first, second, tolerance=0.02):
    """How much two runs of --full agree, by file and where there are both by regime."""
    yield f"| lines of both runs | within {tolerance:.0%} | in cycles | median difference | 95 % of them | largest |"
    yield "|---|---|---|---|---|---|"
    def line(name, pairs, stamped):
        sizes = [abs(d) for _, d, _ in pairs]
        cycles = [abs((1 + d) * (1 + clock) - 1) for _, d, clock in pairs if clock is not None] if stamped else []
        share = lambda values: f"{sum(v <= tolerance for v in values) / len(values):.1%}" if values else ""
        return (f"| {name}: {len(pairs)} | {share(sizes)} | {share(cycles)} | {compare.quantile(sizes, 0.5):.2%} | "
                f"{compare.quantile(sizes, 0.95):.2%} | {max(sizes):.1%} |")

    everything = []
    for stem, pairs, _ in compare.compare(HERE / first, HERE / second):
        everything += pairs
        regimes = {}
        for pair in pairs:
            regimes.setdefault(dict(pair[0]).get("regime", ""), []).append(pair)
        parts = regimes.items() if {"burst", "sustained"} <= set(regimes) else [("", pairs)]
        for regime, some in parts:
            yield line(f"{stem}, {regime}" if regime else stem, some, stem in compare.STAMPED)
    yield line("all", everything, False)


def main():
    attention_rows = read("h200_sxm_full/attention.csv")
    tables = [list(published_runs(attention_rows)), list(h100_runs(attention_rows)),
              list(collectives(read("h200_sxm_x2/collectives.csv"), 2)),
              list(collectives(read("h200_sxm_x4/collectives.csv"), 4)),
              list(rings({2: read("h200_sxm_x2/ring.csv") + read("h200_sxm_x2_shapes/ring.csv"),
                          4: read("h200_sxm_x4/ring.csv")})),
              list(rings({2: read("h100_sxm_x2/ring.csv"), 4: read("h100_sxm_x4/ring.csv")})),
              list(agreement("h200_sxm_whole", "h200_sxm_whole_repeat"))]
    if sys.argv[1:] == ["--check"]:
        text = (HERE / "README.md").read_text()
        stale = [table[0] for table in tables if "\n".join(table) not in text]
        for head in stale:
            print(f"README.md: the table \"{head}\" is not what the files give (validate/measured/tables.py prints it)")
        return 1 if stale else 0
    print("\n\n".join("\n".join(table) for table in tables))
    return 0


if __name__ == "__main__":
    sys.exit(main())
