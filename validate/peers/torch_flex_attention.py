#!/usr/bin/env python3
"""Measures PyTorch's FlexAttention on windows and on pi-Attention, beside `orrery-bench --only 'pi_attention/*'`.

    python3 validate/peers/torch_flex_attention.py -o torch_flex_attention.csv

torch.compile with a block mask (create_block_mask, made before anything is timed). A window of k keys; with a skip of
one key at a period and a gate per token and head as users would write them: the softmax over one key is 1, so the skip
is V shifted by the period, mixed in by a compiled elementwise expression; jointly: the key is a term of the mask. Every
row is compared with double precision on the CPU at 2048 tokens before it is timed. Random normal bf16 data; a burst is
8 launches after a rest of half a second, sustained are launches back to back for a second. Medians of CUDA events.
"""
import argparse
import csv
import datetime
import statistics
import subprocess
import sys
import time

import torch
from torch.nn.attention.flex_attention import create_block_mask, flex_attention

COLUMNS = (
    "implementation,kernel,pass,n,heads,kv_heads,head_dim,window,period,fusion,regime,time_ms,samples,flops,error_norm,"
    "sm_clock_mhz"
).split(",")


def window_mask(window, period=0):
    def mask(b, h, q, k):
        inside = (q >= k) & (q - k < window)
        return inside | (q - k == period) if period else inside

    return mask


@torch.compile
def gated(o, v, logit, period):
    """o, v [1, heads, n, d]; logit [1, heads, n, 1]."""
    skip = torch.roll(v, period, dims=2)
    g = torch.where(torch.arange(o.shape[2], device=o.device)[None, None, :, None] >= period, torch.sigmoid(logit), 1.0)
    return (g * o + (1 - g) * skip).to(o.dtype)


def reference(q, k, v, window, period, fusion, logit):
    q, k, v = (x.double().cpu() for x in (q, k, v))
    n = q.shape[2]
    i = torch.arange(n)
    lag = i[:, None] - i[None, :]
    seen = (lag >= 0) & (lag < window)
    if fusion == "joint":
        seen |= lag == period
    out = (q @ k.transpose(-1, -2) / q.shape[-1] ** 0.5).masked_fill(~seen, float("-inf")).softmax(-1) @ v
    if fusion == "gated":
        g = torch.where(i[None, None, :, None] >= period, torch.sigmoid(logit.double().cpu()), 1.0)
        out = g * out + (1 - g) * torch.roll(v, period, dims=2)
    return out


def build(n, heads, head_dim, window, period, fusion, backward, seed=1):
    torch.manual_seed(seed)
    q, k, v = (torch.randn(1, heads, n, head_dim, device="cuda", dtype=torch.bfloat16) for _ in range(3))
    logit = torch.randn(1, heads, n, 1, device="cuda")
    mask = window_mask(window, period if fusion == "joint" else 0)
    block = create_block_mask(mask, None, None, n, n, device="cuda", _compile=True)
    flex = torch.compile(flex_attention, dynamic=False)

    def forward():
        o = flex(q, k, v, block_mask=block)
        return gated(o, v, logit, period) if fusion == "gated" else o

    if not backward:
        return forward, (q, k, v, logit)
    for x in (q, k, v):
        x.requires_grad_(True)
    d_o = torch.randn_like(q)

    def both():
        for x in (q, k, v):
            x.grad = None
        forward().backward(d_o)

    return both, (q, k, v, logit)


def events(once, samples):
    marks = [torch.cuda.Event(enable_timing=True) for _ in range(samples + 1)]
    marks[0].record()
    for mark in marks[1:]:
        once()
        mark.record()
    torch.cuda.synchronize()
    return statistics.median(a.elapsed_time(b) for a, b in zip(marks, marks[1:]))


def clock():
    try:
        return torch.cuda.clock_rate()
    except Exception:  # no NVML binding
        return ""


def driver():
    query = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    return subprocess.run(query, capture_output=True, text=True, check=False).stdout.split("\n")[0]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-o", "--output", default="torch_flex_attention.csv")
    parser.add_argument("--tokens", type=int, default=131072)
    parser.add_argument("--heads", type=int, default=32)
    parser.add_argument("--head-dim", type=int, default=128)
    parser.add_argument("--windows", type=int, nargs="+", default=[1024, 256, 4096])
    parser.add_argument("--period", type=int, default=8192)
    parser.add_argument("--forward-only", action="store_true")
    args = parser.parse_args()
    with open(args.output, "w", newline="") as file:
        for key, value in {
            "gpu": torch.cuda.get_device_name(), "driver": driver(), "torch": torch.__version__, "cuda": torch.version.cuda,
            "date": datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ"),
            "command": "torch_flex_attention.py " + " ".join(sys.argv[1:]),
        }.items():
            file.write(f"# {key} = {value}\n")
        writer = csv.DictWriter(file, COLUMNS)
        writer.writeheader()
        for window in args.windows:
            first = window == args.windows[0]
            for fusion in ("", "gated", "joint") if first else ("", "gated"):
                backward = first and fusion != "joint" and not args.forward_only
                for both in (False, True) if backward else (False,):
                    for row in measure(args, window, fusion, both):
                        writer.writerow(row)
                        file.flush()
                        print(f"window {window:5} {fusion or 'alone':6} {row['pass']:16} {row['regime']:9} "
                              f"{row['time_ms']:>9} ms", flush=True)


def measure(args, window, fusion, backward):
    """Checks a row at 2048 tokens and yields its two regimes."""
    small = min(args.period, 1536)
    once, (q, k, v, logit) = build(2048, 2, args.head_dim, window, small, fusion, False)
    with torch.no_grad():
        expected = reference(q, k, v, window, small, fusion, logit)
        error = float((once().double().cpu() - expected).norm() / expected.norm())
    if not error < 1e-2:
        raise SystemExit(f"window {window} {fusion}: error {error}")
    torch._dynamo.reset()
    once, _ = build(args.tokens, args.heads, args.head_dim, window, args.period, fusion, backward)
    for _ in range(3):
        once()
    torch.cuda.synchronize()
    time.sleep(0.5)
    burst = events(once, 8)
    count = max(20, int(1000 / burst))
    k = min(window, args.tokens)
    pairs = args.tokens * k - k * (k - 1) / 2 + (args.tokens - args.period if fusion == "joint" else 0)
    for regime, ms, samples in (("burst", burst, 8), ("sustained", events(once, count), count)):
        yield {
            "implementation": "torch", "kernel": "flex_attention",
            "pass": "forward_backward" if backward else "forward", "n": args.tokens, "heads": args.heads, "kv_heads": args.heads, "head_dim": args.head_dim, "window": window,
            "period": args.period if fusion else "", "fusion": fusion, "regime": regime, "time_ms": f"{ms:.4f}",
            "samples": samples, "flops": f"{4 * pairs * args.head_dim * args.heads * (3.5 if backward else 1):.0f}",
            "error_norm": f"{error:.2e}", "sm_clock_mhz": clock(),
        }


if __name__ == "__main__":
    main()
