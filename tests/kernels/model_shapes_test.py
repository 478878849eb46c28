#!/usr/bin/env python3
"""Every shipped model has its matrix products and memory-bound kernels among the measured rows.

    model_shapes_test.py [FOLDER ...]     of measured or of planned rows; default: those of H200 in validate/measured

A shape is a row's widths; the number of tokens is free. Says which shape of which model of scenarios/models/ has no row, and
fails then: it belongs into kernels/rows_gemm.cpp or kernels/rows_elementwise.cpp, and is to be measured.
"""
import csv
import pathlib
import sys
import tomllib

ROOT = pathlib.Path(__file__).parents[2]
ROTARY_HEAD = 128  # of the bench's kernel


def products(model):
    """(layer, in, out) of a model's matrix products, forward."""
    hidden, inner = model["hidden"], model["ffn_hidden"]
    heads, kv_heads = (model[key] * model["head_dim"] for key in ("heads", "kv_heads"))
    yield "qkv", hidden, heads + 2 * kv_heads
    yield "attention_out", heads, hidden
    yield "gate_up" if model["gated_ffn"] else "up", hidden, inner * (2 if model["gated_ffn"] else 1)
    yield "down", inner, hidden
    yield "logits", hidden, model["vocabulary"]


def kernels(model):
    """(kernel, width) of what else a layer runs. Learned positions are added with the embedding."""
    for kernel in ("rms_norm", "add", "embed"):
        yield kernel, model["hidden"]
    if model["gated_ffn"]:
        yield "swiglu", model["ffn_hidden"]
    if not model["learned_positions"] and model["head_dim"] == ROTARY_HEAD:
        yield "rotary", model["heads"] * model["head_dim"]


def read(folders, name):
    """The rows of a file wherever it is; every one has been measured, or planned."""
    rows = []
    for path in (folder / name for folder in folders):
        if path.exists():
            with open(path, newline="") as file:
                rows += [row for row in csv.DictReader(line for line in file if not line.startswith("#"))
                         if row["status"] == "planned" or row["time_us"]]
    return rows


def missing(models, gemm, elementwise):
    """Lines that say what has no row."""
    measured = {(int(row["in"]), int(row["out"])) for row in gemm if row["pass"] == "forward"}
    measured |= {(row["kernel"], int(row["width"])) for row in elementwise}
    for name, model in models.items():
        for layer, width, out in products(model):
            if (width, out) not in measured:
                yield f"{name}: no row of gemm for {layer}, {width} -> {out}"
        for kernel, width in kernels(model):
            if (kernel, width) not in measured:
                yield f"{name}: no row of elementwise for {kernel} of {width}"


def main():
    folders = [pathlib.Path(name) for name in sys.argv[1:]] or sorted((ROOT / "validate/measured").glob("h200_sxm*"))
    models = {path.stem: tomllib.loads(path.read_text()) for path in sorted((ROOT / "scenarios/models").glob("*.toml"))}
    gemm, elementwise = read(folders, "gemm.csv"), read(folders, "elementwise.csv")
    lines = list(missing(models, gemm, elementwise))
    print("\n".join(lines) or f"{len(models)} models: every shape has a row")

    unknown = dict(models["llama3_8b"], ffn_hidden=12345)  # a new model is not forgotten
    found = list(missing({"new": unknown}, gemm, elementwise))
    assert found == ["new: no row of gemm for gate_up, 4096 -> 24690", "new: no row of gemm for down, 12345 -> 4096",
                     "new: no row of elementwise for swiglu of 12345"], found
    return 1 if lines else 0


if __name__ == "__main__":
    sys.exit(main())
