#!/usr/bin/env python3
"""Measures what PyTorch costs the host per call, and writes CSV.

    python3 validate/peers/torch_host_costs.py -o torch_host_costs.csv                            # one GPU
    torchrun --nproc-per-node=2 validate/peers/torch_host_costs.py -o torch_host_costs.csv        # collectives as well

Tensors are so small, and so few calls are queued between two synchronisations, that the host never waits for the GPU:
what is timed is Python, the dispatcher, autograd and the launch. Rank 0's times; median, 5 % and 95 % over samples.
`--calls 1` times each call alone after a barrier and a synchronisation, as torch_context_parallel.py times a pass: what
a host takes for a call it has not just made.
"""
import argparse
import csv
import datetime
import os
import statistics
import sys
import time

import torch
import torch.distributed as dist
import torch.distributed._functional_collectives as functional
import torch.nn.functional as F
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor.experimental import context_parallel
from torch.nn.attention import SDPBackend, sdpa_kernel

try:
    from torch.distributed.tensor.experimental import _attention as ring
    ring._SDPAMerger
except (ImportError, AttributeError):  # newer releases moved it
    from torch.distributed.tensor.experimental._context_parallel import _attention as ring

COLUMNS = "gpu,n_gpu,library,call,what,time_us,p5_us,p95_us,samples,calls_per_sample,status,reason".split(",")
CALLS, SAMPLES = 20, 60  # calls between two synchronisations: a stream takes 1024 launches before the host waits


def gpu_key(name):
    key = "_".join("".join(c.lower() if c.isalnum() else " " for c in name).split()).removeprefix("nvidia_")
    return key[:4] + "_sxm" if key in ("h200", "h100_80gb_hbm3", "b200") else key


def random(*shape, grad=False):
    return torch.randn(*shape, device="cuda", dtype=torch.bfloat16, requires_grad=grad)


def attention(backend, backward, heads=4, tokens=128, head_dim=128):
    q, k, v = (random(1, heads, tokens, head_dim, grad=backward) for _ in range(3))
    gradient = torch.randn_like(q) if backward else None

    def once():
        out = F.scaled_dot_product_attention(q, k, v)
        if backward:
            torch.autograd.grad(out, (q, k, v), gradient)

    def call():
        with sdpa_kernel(backend):
            for _ in range(CALLS):
                once()

    return call


def repeated(once):
    def call():
        for _ in range(CALLS):
            once()

    return call


def local_calls():
    x, y = random(8, 64), random(8, 64)
    f = x.float()
    weight = random(64, 64)
    yield "torch", "add_", "an elementwise operation in place", repeated(lambda: x.add_(y))
    yield "torch", "add", "an elementwise operation with a new tensor", repeated(lambda: x + y)
    yield "torch", "to_f32", "a conversion with a new tensor", repeated(lambda: x.to(torch.float32))
    yield "torch", "copy_", "a copy", repeated(lambda: f.copy_(x))
    yield "torch", "transpose_contiguous", "a transposed copy", repeated(lambda: x.transpose(0, 1).contiguous())
    yield "torch", "chunk_cat", "two halves, swapped and joined", repeated(lambda: torch.cat(x.chunk(2)[::-1]))
    yield "torch", "linear", "a matrix product", repeated(lambda: F.linear(x, weight))
    yield "torch", "empty", "a new tensor, nothing launched", repeated(lambda: torch.empty_like(x))
    yield "torch", "view", "a view, nothing launched", repeated(lambda: x.view(64, 8))
    event, other = torch.cuda.Event(), torch.cuda.Stream()
    yield "torch", "event_record", "an event recorded", repeated(event.record)
    yield "torch", "stream_wait", "a stream that waits for an event", repeated(lambda: other.wait_event(event))
    for name, backend in (("cudnn", SDPBackend.CUDNN_ATTENTION), ("flash", SDPBackend.FLASH_ATTENTION)):
        for backward in (False, True):
            what = "scaled_dot_product_attention" + (" and its gradients" if backward else "")
            yield "torch", f"sdpa_{name}" + ("_backward" if backward else ""), what, attention(backend, backward)


def collective_calls(world, rank):
    x = random(world * 8, 64)
    shard, gathered = random(8, 64), random(world * 8, 64)
    group = dist.group.WORLD
    to, frm = (rank + 1) % world, (rank - 1) % world
    received = torch.empty_like(shard)

    def send_receive():
        operations = [dist.P2POp(dist.isend, shard, to), dist.P2POp(dist.irecv, received, frm)]
        for request in dist.batch_isend_irecv(operations):
            request.wait()

    sizes = [8] * world
    yield "nccl", "all_reduce", "in place, waited for by the stream", repeated(lambda: dist.all_reduce(x))
    yield "nccl", "all_gather_into_tensor", "waited for by the stream", repeated(
        lambda: dist.all_gather_into_tensor(gathered, shard))
    yield "nccl", "reduce_scatter_tensor", "waited for by the stream", repeated(
        lambda: dist.reduce_scatter_tensor(shard, x))
    yield "nccl", "all_to_all_single", "waited for by the stream", repeated(
        lambda: dist.all_to_all_single(gathered, x))
    yield "nccl", "batch_isend_irecv", "to the next rank and from the one before", repeated(send_receive)
    yield "nccl", "functional_all_gather", "as context_parallel calls it, waited for", repeated(
        lambda: functional.wait_tensor(functional.all_gather_tensor(shard, 0, group)))
    yield "nccl", "functional_all_to_all", "as context_parallel calls it, waited for", repeated(
        lambda: functional.wait_tensor(functional.all_to_all_single(x, sizes, sizes, group)))


def one_rank(world, backend, backward, heads=4, tokens=128, head_dim=128):
    """A call inside context_parallel on a mesh of one rank: what the library adds round one block, without a message
    between GPUs (its backward pass sends the gradients to itself)."""
    mesh = init_device_mesh("cuda", (world, 1), mesh_dim_names=("other", "cp"))["cp"]
    q, k, v = (random(1, heads, tokens, head_dim) for _ in range(3))
    gradient = torch.randn_like(q)

    def call():
        ring._cp_options.enable_load_balance = False
        with context_parallel(mesh, buffers=[q, k, v], buffer_seq_dims=[2, 2, 2], no_restore_buffers={q, k, v}):
            with sdpa_kernel(backend):
                for t in (q, k, v):
                    t.requires_grad_(backward)
                torch.cuda.synchronize()
                call.start = time.perf_counter()
                for _ in range(CALLS):
                    out = F.scaled_dot_product_attention(q, k, v)
                    if backward:
                        out.backward(gradient)
                call.end = time.perf_counter()
                for t in (q, k, v):
                    t.requires_grad_(False)
                    t.grad = None

    return call


def context_parallel_calls(world):
    """The parts of torch/distributed/tensor/experimental's ring, one at a time, and a whole call of one rank."""
    out, lse = random(1, 4, 128, 128), random(1, 4, 128, 1).float()
    half, half_lse = random(1, 4, 64, 128), random(1, 4, 64, 1).float()
    f, f_half = out.float(), half.float()
    flat = torch.cat([out.flatten(), out.flatten()])
    group = dist.group.WORLD

    def merger():
        new = ring._SDPAMerger(True, seq_dim=2)
        new.step(out, lse, False)
        return new

    def rotate(method):
        rotater = ring._create_rotater(group, 2, method=method)
        rotater.exchange_buffers(flat)
        buffer = rotater.next_buffer()
        return buffer[: out.numel()].reshape(out.shape), buffer[out.numel():].reshape(out.shape)

    merged = merger()
    cp = "context_parallel"
    yield cp, "merge_first", "a merger made and given the first block", repeated(merger)
    yield cp, "merge", "a block merged", repeated(lambda: merged.step(out, lse, False))
    yield cp, "merge_half", "a block of half the queries merged", repeated(lambda: merged.step(half, half_lse, True))
    yield cp, "merge_results", "the merged block cast back", repeated(merged.results)
    yield cp, "partial_update", "a half added to a gradient", repeated(
        lambda: ring._partial_update(f, f_half, dim=2, n_chunks=2, idx=1, add=True))
    yield cp, "join_keys_values", "K and V joined to one buffer", repeated(
        lambda: torch.cat([out.flatten(), out.flatten()]))
    yield cp, "rotate_alltoall", "a buffer sent, awaited and split", repeated(
        lambda: rotate(ring._RotateMethod.ALL_TO_ALL))
    yield cp, "rotate_allgather", "a buffer gathered, awaited and split", repeated(
        lambda: rotate(ring._RotateMethod.ALL_GATHER))
    for name, backend in (("cudnn", SDPBackend.CUDNN_ATTENTION), ("flash", SDPBackend.FLASH_ATTENTION)):
        for backward in (False, True):
            what = "a call on a mesh of one rank" + (" and its gradients" if backward else "")
            yield cp, f"one_rank_{name}" + ("_backward" if backward else ""), what, one_rank(world, backend, backward)


def measure(call, together):
    samples = []
    for i in range(SAMPLES + 10):
        if together:
            dist.barrier()
        torch.cuda.synchronize()
        start = time.perf_counter()
        call()
        end = time.perf_counter()
        if hasattr(call, "start"):  # it has work of its own round the calls
            start, end = call.start, call.end
        if i >= 10:
            samples.append(1e6 * (end - start) / CALLS)
    torch.cuda.synchronize()
    return sorted(samples)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-o", "--output", default="torch_host_costs.csv")
    parser.add_argument("--calls", type=int, default=CALLS, help="between two synchronisations")
    args = parser.parse_args()
    globals()["CALLS"] = args.calls
    world, rank = int(os.environ.get("WORLD_SIZE", "1")), int(os.environ.get("RANK", "0"))
    os.environ.setdefault("NCCL_NVLS_ENABLE", "0")
    torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))
    if world > 1:
        dist.init_process_group("nccl", device_id=torch.device("cuda", torch.cuda.current_device()))
    calls = list(local_calls())
    if world > 1:
        calls += list(collective_calls(world, rank)) + list(context_parallel_calls(world))
    out = open(args.output if rank == 0 else os.devnull, "w", newline="")
    header = {
        "gpu": torch.cuda.get_device_name(),
        "gpus": world,
        "torch": torch.__version__,
        "cuda": torch.version.cuda,
        "cudnn": torch.backends.cudnn.version(),
        "nccl": ".".join(map(str, torch.cuda.nccl.version())),
        "python": sys.version.split()[0],
        "date": datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "host_cores": os.cpu_count(),
        "command": (f"torchrun --nproc-per-node={world} " if world > 1 else "python3 ") + "torch_host_costs.py "
        + " ".join(sys.argv[1:]),
    }
    for key, value in header.items():
        out.write(f"# {key} = {value}\n")
    writer = csv.DictWriter(out, COLUMNS, lineterminator="\n")
    writer.writeheader()
    failed = 0
    for library, name, what, call in calls:
        row = {"gpu": gpu_key(torch.cuda.get_device_name()), "n_gpu": world, "library": library, "call": name,
               "what": what, "calls_per_sample": CALLS, "status": "ok"}
        try:
            samples = measure(call, library != "torch")
            row.update(time_us=f"{statistics.median(samples):.4g}", p5_us=f"{samples[len(samples) // 20]:.4g}",
                       p95_us=f"{samples[-1 - len(samples) // 20]:.4g}", samples=len(samples))
        except Exception as exception:  # a call that this version does not have
            row.update(status="failed", reason=str(exception).splitlines()[0][:200])
            failed += 1
        writer.writerow(row)
        out.flush()
        if rank == 0:
            print(name, row.get("time_us", row.get("reason")), flush=True)
    out.close()
    if world > 1:
        dist.destroy_process_group()
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
