#!/usr/bin/env python3
"""Times of the kernels that PyTorch libraries launch around attention, as CSV (validate/measured/h100_sxm/eager.csv).

    python3 kernels/eager_kernels.py h100_sxm > eager.csv

Bytes count what each kernel must read and write. Ten calls are captured in a CUDA graph, so that the host's time is left
out; the median of nine samples of two replays.
"""
import datetime
import sys

import torch
import torch.nn.functional as F

HEADS, HEAD_DIM = 64, 128
WIDTH = HEADS * HEAD_DIM


@torch.jit.script
def merge_fused(out, lse, block_out, block_lse):
    """The update of ring-flash-attention (utils.py, _update_out_and_lse); PyTorch's fuser makes one kernel of it."""
    block_out = block_out.to(torch.float32)
    block_lse = block_lse.transpose(-2, -1).unsqueeze(dim=-1)
    out = out - F.sigmoid(block_lse - lse) * (out - block_out)
    lse = lse - F.logsigmoid(lse - block_lse)
    return out, lse


def merge_eager(out, lse, block_out, block_lse):
    block_out = block_out.to(torch.float32)
    block_lse = block_lse.transpose(-2, -1).unsqueeze(-1)
    return out - F.sigmoid(block_lse - lse) * (out - block_out), lse - F.logsigmoid(lse - block_lse)


def random(*shape, dtype=torch.bfloat16):
    return torch.randn(*shape, device="cuda", dtype=dtype)


def microseconds(call):
    for _ in range(30):
        call()
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        for _ in range(10):
            call()
    samples = []
    for _ in range(9):
        start, end = torch.cuda.Event(True), torch.cuda.Event(True)
        graph.replay()
        start.record()
        graph.replay()
        graph.replay()
        end.record()
        torch.cuda.synchronize()
        samples.append(start.elapsed_time(end) * 50)
    return sorted(samples)[4]


def kernels(tokens):
    """(name, bytes per element, call)"""
    x = random(tokens, HEADS, HEAD_DIM)
    y, f = x.clone(), x.float()
    rows = torch.arange(tokens, device="cuda")[:, None, None].expand(-1, HEADS, HEAD_DIM)
    merge = (f.view(1, tokens, HEADS, HEAD_DIM), random(1, tokens, HEADS, 1, dtype=torch.float32),
             x.view(1, tokens, HEADS, HEAD_DIM), random(1, HEADS, tokens, dtype=torch.float32))
    outside = f.view(1, HEADS, tokens, HEAD_DIM)
    inside = x.view(1, tokens, HEADS, HEAD_DIM).transpose(1, 2)
    halves = outside.chunk(2, dim=2)
    return [
        ("gather", 4, lambda: torch.gather(x, 0, rows)),
        ("scatter", 4, lambda: y.scatter_(0, rows, x)),
        ("fill", 2, lambda: y.zero_()),
        ("copy_kernel", 4, lambda: y.copy_(x)),
        ("add_bf16", 6, lambda: y.add_(x)),
        ("transpose_heads", 4, lambda: x.transpose(0, 1).contiguous()),
        ("to_f32", 6, lambda: x.to(torch.float32)),
        ("to_bf16", 6, lambda: f.to(torch.bfloat16)),
        ("accumulate", 10, lambda: f.add_(x)),
        ("merge_fused", 10, lambda: merge_fused(*merge)),
        ("merge_eager", 38, lambda: merge_eager(*merge)),
        # context_parallel: K and V joined for their hop, halves of a sum put together anew, gradients that attention
        # wrote with heads inside, added to a sum with heads outside.
        ("join", 8, lambda: torch.cat([x.flatten(), y.flatten()])),
        ("join_halves", 8, lambda: torch.cat(halves, dim=2)),
        ("accumulate_heads", 10, lambda: outside.add_(inside)),
    ]


def main():
    torch.set_grad_enabled(False)
    print(f"# gpu = {torch.cuda.get_device_name()}")
    print(f"# pytorch = {torch.__version__}")
    print(f"# date = {datetime.datetime.now(datetime.timezone.utc):%Y-%m-%dT%H:%M:%SZ}")
    print(f"# command = python3 kernels/eager_kernels.py {sys.argv[1]}")
    print("gpu,kernel,tokens,width,time_us,bytes,regime")
    for tokens in (2048, 3072, 4096, 6144, 8192, 12288, 16384):
        for name, bytes_per_element, call in kernels(tokens):
            bytes_moved = bytes_per_element * tokens * WIDTH
            print(f"{sys.argv[1]},{name},{tokens},{WIDTH},{microseconds(call):.3f},{bytes_moved},sustained", flush=True)


if __name__ == "__main__":
    main()
