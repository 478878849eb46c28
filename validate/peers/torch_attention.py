#!/usr/bin/env python3
"""Measures the attention kernels that PyTorch's context_parallel calls, on one GPU, and writes kernel rows as CSV.

    python3 validate/peers/torch_attention.py -o torch_attention.csv

aten's flash and cuDNN operators, forward and backward by themselves, on the blocks of a ring: squares, causal squares, and
halves of queries or keys as the head-tail load balancer makes them. Ten calls are captured in a CUDA graph, so that the
host's time is left out; graphs are replayed back to back for --seconds, the last half counts (sustained, at the clock that
the power limit leaves). Output and gradients of every operator and kind of block are compared with double precision at 512
tokens before it is timed. Random normal bf16 data. Clock and power: median of NVML's samples in that half.
"""
import argparse
import csv
import ctypes
import datetime
import statistics
import subprocess
import sys
import threading
import time

import torch

COLUMNS = (
    "implementation,backend,gpu,link,n_gpu,seq_len,heads,kv_heads,head_dim,causal,layout,schedule,pass,time_ms,n_q,n_k,"
    "mask,window,p5_ms,p95_ms,samples,launches_per_sample,regime,sm_clock_mhz,power_w,temperature_c,error_norm,status,"
    "reason"
).split(",")
TOLERANCE = 1e-2
CALLS = 10
aten = torch.ops.aten


def gpu_key(name):
    key = "_".join("".join(c.lower() if c.isalnum() else " " for c in name).split()).removeprefix("nvidia_")
    return key[:4] + "_sxm" if key in ("h200", "h100_80gb_hbm3", "b200") else key


class Sensors(threading.Thread):
    """SM clock in MHz, power in W and temperature in C, sampled while it runs; empty where NVML is missing."""

    def __init__(self):
        super().__init__(daemon=True)
        self.samples, self.going = [], True
        try:
            self.nvml = ctypes.CDLL("libnvidia-ml.so.1")
            self.device = ctypes.c_void_p()
            uuid = str(torch.cuda.get_device_properties(0).uuid)
            name = (uuid if uuid.startswith("GPU-") else "GPU-" + uuid).encode()
            if self.nvml.nvmlInit_v2() or self.nvml.nvmlDeviceGetHandleByUUID(name, ctypes.byref(self.device)):
                self.nvml = None
        except (OSError, AttributeError):
            self.nvml = None

    def run(self):
        clock, power, degrees = ctypes.c_uint(), ctypes.c_uint(), ctypes.c_uint()
        while self.going and self.nvml:
            self.nvml.nvmlDeviceGetClockInfo(self.device, 1, ctypes.byref(clock))
            self.nvml.nvmlDeviceGetPowerUsage(self.device, ctypes.byref(power))
            self.nvml.nvmlDeviceGetTemperature(self.device, 0, ctypes.byref(degrees))
            self.samples.append((time.time(), clock.value, power.value / 1000, degrees.value))
            time.sleep(0.01)

    def since(self, begin):
        rows = [s[1:] for s in self.samples if s[0] >= begin]
        return [statistics.median(column) for column in zip(*rows)] if rows else ["", "", ""]


def forward(backend, q, k, v, causal):
    """Output, log-sum-exp, and what the backward operator wants besides."""
    if backend == "flash":
        out, lse, cum_q, cum_k, max_q, max_k, seed, offset, _ = aten._scaled_dot_product_flash_attention(
            q, k, v, 0.0, causal, False)
        return out, lse, (cum_q, cum_k, max_q, max_k, 0.0, causal, seed, offset)
    out, lse, cum_q, cum_k, max_q, max_k, seed, offset, _ = aten._scaled_dot_product_cudnn_attention(
        q, k, v, None, True, 0.0, causal, False)
    return out, lse, (seed, offset, None, cum_q, cum_k, max_q, max_k, 0.0, causal)


def backward(backend, d_out, q, k, v, out, lse, rest):
    op = aten._scaled_dot_product_flash_attention_backward
    if backend == "cudnn":
        op = aten._scaled_dot_product_cudnn_attention_backward
    return op(d_out, q, k, v, out, lse, *rest)[:3]


def random(heads, tokens, head_dim):
    return torch.randn(1, heads, tokens, head_dim, device="cuda", dtype=torch.bfloat16)


def why(exception):
    """One line of an exception that may have no text."""
    return (str(exception).splitlines() or [type(exception).__name__])[0][:200]


def check(backend, n_q, n_k, causal, heads, kv_heads, head_dim):
    """||x - reference|| / ||reference|| of the output and the gradients of q, k and v, by name."""
    torch.manual_seed(1)
    q, d_out = random(heads, n_q, head_dim), random(heads, n_q, head_dim)
    k, v = random(kv_heads, n_k, head_dim), random(kv_heads, n_k, head_dim)
    with torch.no_grad():
        out, lse, rest = forward(backend, q, k, v, causal)
        results = (out,) + tuple(backward(backend, d_out, q, k, v, out, lse, rest))
    inputs = [t.double().requires_grad_(True) for t in (q, k, v)]
    keys, values = (t.repeat_interleave(heads // kv_heads, dim=1) for t in inputs[1:])
    score = inputs[0] @ keys.transpose(-1, -2) / head_dim**0.5
    if causal:
        score = score.masked_fill(torch.ones_like(score, dtype=torch.bool).triu(1), float("-inf"))
    expected = score.softmax(-1) @ values
    gradients = torch.autograd.grad(expected, inputs, d_out.double())
    return {name: float((x.double() - y).norm() / y.norm())
            for name, x, y in zip(("out", "dq", "dk", "dv"), results, (expected,) + gradients)}


def checked(*shape):
    """The largest error of a backend and kind of block and, if it is too large, why."""
    try:
        errors = check(*shape)
    except Exception as exception:  # a kind of block that a backend refuses is a row that failed
        return float("nan"), why(exception)
    wrong = {name: e for name, e in errors.items() if not e <= TOLERANCE}
    reason = "wrong result: " + ", ".join(f"{name} {e:.3g}" for name, e in wrong.items())
    return max((wrong or errors).values()), reason if wrong else ""


def time_graph(call, seconds):
    """Median, 5 % and 95 % of milliseconds a call, samples, clock, power, temperature."""
    side = torch.cuda.Stream()  # warm-up on a side stream, as capture demands
    with torch.cuda.stream(side):
        for _ in range(3):
            call()
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        for _ in range(CALLS):
            call()
    sensors = Sensors()
    sensors.start()
    begin, marks = time.time(), []
    while time.time() - begin < seconds or len(marks) < 6:
        start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        start.record()
        graph.replay()
        end.record()
        marks.append((start, end))
        if len(marks) > 2:
            marks[-3][1].synchronize()  # two replays are queued, so the GPU never waits
    torch.cuda.synchronize()
    half = begin + (time.time() - begin) / 2
    sensors.going = False
    samples = sorted(start.elapsed_time(end) / CALLS for start, end in marks[len(marks) // 2:])
    pick = lambda p: samples[min(len(samples) - 1, int(p * (len(samples) - 1) + 0.5))]
    return (statistics.median(samples), pick(0.05), pick(0.95), len(samples), *sensors.since(half))


def blocks(n):
    """(n_q, n_k, causal): of a rank's block, and of the halves that a balanced causal ring attends."""
    return (n, n, False), (n, n, True), (n // 2, n, False), (n, n // 2, False)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-o", "--output", default="torch_attention.csv")
    parser.add_argument("--lengths", type=int, nargs="+", default=[1024, 1536, 2048, 3072, 4096, 6144, 8192, 16384, 32768])
    parser.add_argument("--heads", type=int, default=32)
    parser.add_argument("--kv-heads", type=int, default=32)
    parser.add_argument("--head-dim", type=int, default=128)
    parser.add_argument("--backend", nargs="+", choices=["flash", "cudnn"], default=["flash", "cudnn"])
    parser.add_argument("--seconds", type=float, default=0.8, help="of launches back to back for each row")
    args = parser.parse_args()
    torch.set_grad_enabled(True)
    query = ["nvidia-smi", "--query-gpu=driver_version,power.limit", "--format=csv,noheader,nounits"]
    system = subprocess.run(query, capture_output=True, text=True, check=False).stdout.split("\n")[0].split(", ")
    failed = 0
    with open(args.output, "w", newline="") as file:
        for key, value in {
            "gpu": torch.cuda.get_device_name(), "driver": system[0], "power_limit_w": system[-1],
            "torch": torch.__version__, "cuda": torch.version.cuda, "cudnn": torch.backends.cudnn.version(),
            "date": datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ"),
            "cache": "warm",
            "how": f"{CALLS} calls in a CUDA graph, replayed back to back for {args.seconds} s, median of the last half",
            "command": "torch_attention.py " + " ".join(sys.argv[1:]),
        }.items():
            file.write(f"# {key} = {value}\n")
        writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        writer.writeheader()
        for backend in args.backend:
            group = args.heads // args.kv_heads
            checks = [checked(backend, *block, 2 * group, 2, args.head_dim) for block in blocks(512)]
            for (n_q, n_k, causal), (error, reason) in (pair for n in args.lengths for pair in zip(blocks(n), checks)):
                torch.manual_seed(1)
                q, d_out = random(args.heads, n_q, args.head_dim), random(args.heads, n_q, args.head_dim)
                k, v = random(args.kv_heads, n_k, args.head_dim), random(args.kv_heads, n_k, args.head_dim)
                for phase in ("forward", "backward"):
                    row = {
                        "implementation": "pytorch", "backend": backend, "gpu": gpu_key(torch.cuda.get_device_name()),
                        "link": "none", "n_gpu": 1, "seq_len": n_q, "heads": args.heads, "kv_heads": args.kv_heads,
                        "head_dim": args.head_dim, "causal": str(causal).lower(), "layout": "contiguous",
                        "schedule": "kernel", "pass": phase, "n_q": n_q, "n_k": n_k,
                        "mask": "causal" if causal else "full", "launches_per_sample": CALLS, "regime": "sustained",
                        "error_norm": f"{error:.4g}", "status": "ok",
                    }
                    try:
                        if reason:
                            raise RuntimeError(reason)
                        with torch.no_grad():
                            out, lse, rest = forward(backend, q, k, v, causal)
                            call = lambda: forward(backend, q, k, v, causal)
                            if phase == "backward":
                                call = lambda: backward(backend, d_out, q, k, v, out, lse, rest)
                            median, p5, p95, n, mhz, watts, degrees = time_graph(call, args.seconds)
                        row.update(time_ms=f"{median:.6g}", p5_ms=f"{p5:.6g}", p95_ms=f"{p95:.6g}", samples=n,
                                   sm_clock_mhz=mhz, power_w=watts, temperature_c=degrees)
                    except Exception as exception:  # a shape that a backend refuses is a row that failed
                        row.update(status="failed", reason=why(exception))
                        failed += 1
                    writer.writerow(row)
                    file.flush()
                    print(backend, row["mask"], n_q, n_k, phase, row.get("time_ms", row.get("reason")), flush=True)
                    torch.cuda.empty_cache()
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
