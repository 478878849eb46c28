#!/usr/bin/env python3
"""Writes the two tables of errors in README.md anew: `make error_tables`, after constants or measured files changed.

    tools/error_tables.py build/release/orrery README.md
"""
import subprocess
import sys

FENCE = "```\n"


def table(orrery, *which):
    """Of the summary: what stands before the orderings and the rows that are not predicted."""
    summary = subprocess.run([orrery, "validate", *which, "--summary"], capture_output=True, text=True, check=True).stdout
    lines = summary.splitlines(keepends=True)
    end = next((i for i, line in enumerate(lines) if line.startswith(("not predicted", "orderings of"))), len(lines))
    return "".join(lines[:end])


def main():
    orrery, path = sys.argv[1:3]
    with open(path, encoding="utf-8") as file:
        readme = file.read()
    at = 0
    for which in ((), ("--published",)):
        begin = readme.index(FENCE + "held-out rows", at) + len(FENCE)
        end = readme.index(FENCE, begin)
        new = table(orrery, *which)
        readme = readme[:begin] + new + readme[end:]
        at = begin + len(new)
    with open(path, "w", encoding="utf-8") as file:
        file.write(readme)


if __name__ == "__main__":
    main()
