#!/usr/bin/env python3
"""Writes the tables of errors anew: `make error_tables`, after constants or measured files changed.

    tools/error_tables.py build/release/orrery README.md validate/measured/errors.md
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


def replaced(text, new, at):
    """`text` with the next table after `at` replaced, and where the new one ends."""
    begin = text.index(FENCE + "held-out rows", at) + len(FENCE)
    return text[:begin] + new + text[text.index(FENCE, begin):], begin + len(new)


def main():
    orrery, readme_path, whole_path = sys.argv[1:4]
    measured, published = table(orrery), table(orrery, "--published")
    head, *groups = measured.splitlines(keepends=True)
    over_folders = head + "".join(line for line in groups if line.startswith("all"))
    for path, tables in ((readme_path, (over_folders, published)), (whole_path, (measured,))):
        with open(path, encoding="utf-8") as file:
            text = file.read()
        at = 0
        for new in tables:
            text, at = replaced(text, new, at)
        with open(path, "w", encoding="utf-8") as file:
            file.write(text)


if __name__ == "__main__":
    main()
