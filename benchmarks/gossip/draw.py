# SPDX-License-Identifier: Apache-2.0
"""Draws the convergence curves that `pulsing-sim` wrote: one PNG per CSV file.

Usage: draw.py CSV... [--out FOLDER]

A CSV has the columns curve,seconds,share; its first line may be a comment "# title | x | y".
"""

import argparse
import csv
import pathlib
import sys

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt


def read_curves(path):
    """Returns (labels, {curve: [(seconds, share), ...]}) of one file."""
    labels = [path.stem, "seconds", "share"]
    curves = {}
    with path.open(newline="") as file:
        first = file.readline()
        if first.startswith("#"):
            labels = [part.strip() for part in first[1:].split("|")]
        else:
            file.seek(0)
        for row in csv.DictReader(file):
            point = (float(row["seconds"]), float(row["share"]))
            curves.setdefault(row["curve"], []).append(point)
    return labels, curves


def draw(path, folder):
    labels, curves = read_curves(path)
    if not curves:
        raise SystemExit(f"{path}: no curve in it")
    figure, axes = plt.subplots(figsize=(7.2, 4.4), constrained_layout=True)
    for name, points in curves.items():
        points.sort()
        axes.step([p[0] for p in points], [p[1] for p in points], where="post", label=name)
    axes.set(title=labels[0], xlabel=labels[1], ylabel=labels[2], ylim=(-0.02, 1.04))
    axes.set_xlim(left=0)
    axes.grid(alpha=0.3)
    axes.legend(fontsize="small")
    target = folder / f"{path.stem}.png"
    figure.savefig(target, dpi=120)
    plt.close(figure)
    return target


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("csv", nargs="+", type=pathlib.Path)
    parser.add_argument("--out", type=pathlib.Path, default=pathlib.Path("."))
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    for path in options.csv:
        print(draw(path, options.out))
    return 0


if __name__ == "__main__":
    sys.exit(main())
