#!/usr/bin/env python3
"""Measures PyTorch's own context_parallel and writes a CSV that `orrery validate` reads.

    torchrun --nproc-per-node=2 validate/peers/torch_context_parallel.py -o torch_context_parallel.csv

Both rotations (allgather and alltoall), the cuDNN and flash backends, forward and forward+backward, full and causal
(causal with PyTorch's head-tail load balancer, which is the zigzag layout; full with contiguous shards, as it demands).
Every configuration is compared with attention over the whole sequence in double precision at a small size before it is
timed: the output, and for rows with a backward pass the gradients of q, k and v too. Timed eagerly, as users run it: the
host's launches are part of what is measured. The slowest rank counts. Random normal bf16 data.
"""
import argparse
import csv
import datetime
import itertools
import os
import statistics
import subprocess
import sys
import time

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor.experimental import context_parallel
from torch.nn.attention import SDPBackend, sdpa_kernel

try:
    from torch.distributed.tensor.experimental._attention import (
        _cp_options,
        context_parallel_unshard,
        set_rotate_method,
    )
except ImportError:  # newer releases moved it
    from torch.distributed.tensor.experimental._context_parallel._attention import (
        _cp_options,
        context_parallel_unshard,
        set_rotate_method,
    )

BACKENDS = {"cudnn": SDPBackend.CUDNN_ATTENTION, "flash": SDPBackend.FLASH_ATTENTION}
COLUMNS = (
    "implementation,backend,gpu,link,n_gpu,seq_len,heads,kv_heads,head_dim,causal,layout,schedule,pass,time_ms,"
    "p5_ms,p95_ms,samples,ci95_rel,error_norm,status,reason"
).split(",")
TOLERANCE = 1e-2


def gpu_key(name):
    key = "_".join("".join(c.lower() if c.isalnum() else " " for c in name).split()).removeprefix("nvidia_")
    return key[:4] + "_sxm" if key in ("h200", "h100_80gb_hbm3", "b200") else key


def why(exception):
    """One line of an exception that may have no text."""
    return (str(exception).splitlines() or [type(exception).__name__])[0][:200]


def inside(mesh, shape, causal, backend, backward, rotate, body, seed=1):
    """Shards random q, k, v and the gradient of the output over the mesh, all four in the same layout, and calls
    body(once, sharded, whole): once() is a call of attention, and its backward pass if asked for."""
    heads, kv_heads, seq_len, head_dim = shape
    set_rotate_method(rotate)
    _cp_options.enable_load_balance = causal
    torch.manual_seed(seed)  # the same whole tensors on every rank
    device = torch.device("cuda", torch.cuda.current_device())
    tensors = [
        torch.randn(1, h, seq_len, head_dim, device=device, dtype=torch.bfloat16)
        for h in (heads, kv_heads, kv_heads) + (heads,) * backward
    ]
    whole = [t.clone() for t in tensors] if seq_len <= 4096 else None
    with context_parallel(mesh, buffers=tensors, buffer_seq_dims=[2] * len(tensors), no_restore_buffers=set(tensors)):
        with sdpa_kernel(BACKENDS[backend]):
            q, k, v = inputs = tensors[:3]
            for t in inputs:
                t.requires_grad_(backward)

            def once():
                for t in inputs:
                    t.grad = None
                out = F.scaled_dot_product_attention(q, k, v, is_causal=causal, enable_gqa=heads != kv_heads)
                if backward:
                    out.backward(tensors[3])
                return out

            return body(once, inputs, whole)


def reference(whole, causal):
    """Output of attention over the whole sequence in double precision, on this GPU alone, and, given the gradient of the
    output as the fourth tensor, the gradients of q, k and v. Nothing is sharded, no attention operator is called."""
    q, k, v, *d_out = (t.double() for t in whole)
    inputs = [t.requires_grad_(bool(d_out)) for t in (q, k, v)]
    k, v = (t.repeat_interleave(q.shape[1] // t.shape[1], dim=1) for t in (k, v))
    score = q @ k.transpose(-1, -2) / q.shape[-1] ** 0.5
    if causal:
        score = score.masked_fill(torch.ones_like(score, dtype=torch.bool).triu(1), float("-inf"))
    out = score.softmax(-1) @ v
    return [out.detach(), *(torch.autograd.grad(out, inputs, *d_out) if d_out else ())]


def check(mesh, causal, backend, backward, rotate, head_dim, gqa):
    """||x - reference|| / ||reference|| over all ranks at 1024 tokens of the output and, if the backward pass is asked
    for, of the gradients of q, k and v, by name. The shards are put together as the layout has them."""

    def body(once, inputs, whole):
        out = once().detach()
        shards = [out] + ([t.grad for t in inputs] if backward else [])
        full = [context_parallel_unshard(mesh, [shard.contiguous()], [2])[0] for shard in shards]
        return {name: float((x.double() - expected).norm() / expected.norm())
                for name, x, expected in zip(("out", "dq", "dk", "dv"), full, reference(whole, causal))}

    return inside(mesh, (4, 2 if gqa else 4, 1024, head_dim), causal, backend, backward, rotate, body)


def measure(once, cap_s):
    """Milliseconds of the slowest rank, at least 20 samples, until the median is known to 0.5 % or cap_s is over.
    What is too long for 20 samples in ten times cap_s gets fewer."""
    for _ in range(3):
        once()
    torch.cuda.synchronize()
    begin, warm = time.time(), torch.zeros(1, device="cuda")
    while not warm.item():  # the clock settles; rank 0 says how long, since every rank must call `once` as often
        once()
        warm.fill_(time.time() - begin > 0.2)
        dist.broadcast(warm, 0)
    samples, begin = [], time.time()
    start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    while True:
        for _ in range(5):
            dist.barrier()
            torch.cuda.synchronize()
            start.record()
            once()
            end.record()
            torch.cuda.synchronize()
            slowest = torch.tensor([start.elapsed_time(end)], device="cuda")
            dist.all_reduce(slowest, op=dist.ReduceOp.MAX)
            samples.append(slowest.item())
        ordered = sorted(samples)
        n, median = len(ordered), statistics.median(ordered)
        half = 0.98 * n**0.5
        low, high = ordered[max(0, int(n / 2 - half))], ordered[min(n - 1, int(n / 2 + half) + 1)]
        ci = (high - low) / 2 / median
        spent = time.time() - begin
        over = torch.tensor([float((n >= 20 and (ci < 0.005 or spent > cap_s)) or spent > 10 * cap_s)], device="cuda")
        dist.broadcast(over, 0)
        if over.item():
            pick = lambda p: ordered[min(n - 1, int(p * (n - 1) + 0.5))]
            return median, pick(0.05), pick(0.95), n, ci


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-o", "--output", default="torch_context_parallel.csv")
    parser.add_argument("--seq-len", type=int, nargs="+", default=[8192, 16384, 32768, 65536, 131072])
    parser.add_argument("--heads", type=int, default=32)
    parser.add_argument("--kv-heads", type=int, default=32)
    parser.add_argument("--head-dim", type=int, default=128)
    parser.add_argument("--backend", nargs="+", choices=sorted(BACKENDS), default=["cudnn", "flash"])
    parser.add_argument("--rotate", nargs="+", choices=["alltoall", "allgather"], default=["alltoall", "allgather"])
    parser.add_argument("--link", default="nvlink4", help="what joins the GPUs; only written down")
    parser.add_argument("--cap-s", type=float, default=0.5, help="seconds a row may take beyond 20 samples")
    args = parser.parse_args()

    os.environ.setdefault("NCCL_NVLS_ENABLE", "0")
    local = int(os.environ.get("LOCAL_RANK", "0"))
    torch.cuda.set_device(local)
    dist.init_process_group("nccl", device_id=torch.device("cuda", local))
    world, rank = dist.get_world_size(), dist.get_rank()
    mesh = init_device_mesh("cuda", (world,), mesh_dim_names=("cp",))

    out = writer = None
    if rank == 0:
        out = open(args.output, "w", newline="")
        header = {
            "gpu": torch.cuda.get_device_name(),
            "gpus": world,
            "driver": subprocess.run(
                ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"], capture_output=True, text=True,
                check=False).stdout.split("\n")[0],
            "torch": torch.__version__,
            "cuda": torch.version.cuda,
            "cudnn": torch.backends.cudnn.version(),
            "nccl": ".".join(map(str, torch.cuda.nccl.version())),
            "nccl_nvls_enable": os.environ["NCCL_NVLS_ENABLE"],
            "clocks": "not locked",
            "date": datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ"),
            "host_cores": os.cpu_count(),
            "how": "eager, slowest rank, median; output and gradients checked against fp64 at 1024 tokens before",
            "command": f"torchrun --nproc-per-node={world} torch_context_parallel.py " + " ".join(sys.argv[1:]),
        }
        for key, value in header.items():
            out.write(f"# {key} = {value}\n")
        writer = csv.DictWriter(out, COLUMNS, lineterminator="\n")
        writer.writeheader()
        out.flush()

    checks = {}

    def checked(backend, rotate, causal, backward):
        """The largest error of a configuration and, if it is too large, why; once for all its rows."""
        key = backend, rotate, causal, backward
        if key not in checks:
            error, reason = float("nan"), ""
            try:
                errors = check(mesh, causal, backend, backward, rotate, args.head_dim, args.heads != args.kv_heads)
                wrong = {name: e for name, e in errors.items() if not e <= TOLERANCE}
                error = max((wrong or errors).values())
                if wrong:
                    reason = "wrong result: " + ", ".join(f"{name} {e:.3g}" for name, e in wrong.items())
            except Exception as exception:  # a backend that refuses the shape is a row that failed
                reason = why(exception)
            checks[key] = error, reason
        return checks[key]

    # Short ones first: a run may be ended by a time limit.
    failed = 0
    for seq_len, backend, rotate, causal, backward in itertools.product(
        args.seq_len, args.backend, args.rotate, (False, True), (False, True)
    ):
        error, reason = checked(backend, rotate, causal, backward)
        row = {
            "implementation": "pytorch_context_parallel",
            "backend": backend,
            "gpu": gpu_key(torch.cuda.get_device_name()),
            "link": args.link,
            "n_gpu": world,
            "seq_len": seq_len,
            "heads": args.heads,
            "kv_heads": args.kv_heads,
            "head_dim": args.head_dim,
            "causal": str(causal).lower(),
            "layout": "zigzag" if causal else "contiguous",
            "schedule": rotate,
            "pass": "forward_backward" if backward else "forward",
            "error_norm": f"{error:.4g}",
            "status": "failed" if reason else "ok",
            "reason": reason,
        }
        if not reason:
            try:
                shape = (args.heads, args.kv_heads, seq_len, args.head_dim)
                median, p5, p95, n, ci = inside(
                    mesh, shape, causal, backend, backward, rotate, lambda once, inputs, whole: measure(once, args.cap_s)
                )
                row.update(
                    time_ms=f"{median:.6g}", p5_ms=f"{p5:.6g}", p95_ms=f"{p95:.6g}", samples=n, ci95_rel=f"{ci:.4g}"
                )
            except Exception as exception:
                row.update(status="failed", reason=why(exception))
        failed += row["status"] == "failed"
        if writer:
            writer.writerow(row)
            out.flush()
            print(*(row.get(c, "") for c in ("backend", "schedule", "causal", "seq_len", "pass")),
                  row.get("time_ms", row["reason"]), flush=True)
    if out:
        out.close()
    dist.destroy_process_group()
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
