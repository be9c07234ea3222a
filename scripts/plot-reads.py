#!/usr/bin/env python3
"""Draws what `measure-reads.sh` printed, as SVG on standard output: nanoseconds per read of 100 bytes by number of keys."""

import math
import re
import sys

# As printed, as shown, its color, and which column counts: processor time, or for other processes' work what passes.
SERIES = [
    ("  and a copy", "bare sequence lock, copy", "#475569", 0),
    ("Reader::get, a copy", "get (copy)", "#2563eb", 0),
    ("Reader::get_ref, in place", "get_ref (in place)", "#7c3aed", 0),
    ("Reader::get_many, of 64", "get_many, of 64", "#16a34a", 0),
    ("StarClient::get", "StarClient::get", "#0891b2", 0),
    ("LMDB, transaction and get", "LMDB", "#d97706", 0),
    ("Redis, Unix socket", "Redis, Unix socket", "#dc2626", 2),
    ("Plasma, get and release", "Plasma", "#be185d", 2),
]
LEFT, TOP, WIDTH, HEIGHT, LEGEND = 70, 30, 420, 340, 190


def read(path):
    """Of each series its points: (keys, nanoseconds)."""
    points, keys = {}, None
    for line in open(path):
        head = re.match(r"(\d+) keys, values of (\d+) B", line)
        if head:
            keys = int(head[1]) if head[2] == "100" else None
        numbers = re.search(r"((?:\s+\d+){2,3})\s*$", line)
        for name, _, _, column in SERIES:
            if keys and numbers and line[: len(name) + 1].rstrip() == name.rstrip():
                columns = [float(number) for number in numbers[1].split()]
                points.setdefault(name, []).append((keys, columns[-1] if column == 2 else columns[0]))
    return points


def main():
    points = read(sys.argv[1])
    all_keys = sorted({keys for series in points.values() for keys, _ in series})
    low, high = math.log10(all_keys[0]), math.log10(all_keys[-1])

    def x(keys):
        return LEFT + (math.log10(keys) - low) / (high - low) * WIDTH

    def y(nanoseconds):
        return TOP + HEIGHT - (math.log10(nanoseconds) - 1) / 4 * HEIGHT

    print(
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{LEFT + WIDTH + LEGEND}" height="{TOP + HEIGHT + 50}" '
        'font-family="sans-serif" font-size="11">\n<rect width="100%" height="100%" fill="white"/>'
    )
    for exponent, label in zip(range(1, 6), ["10 ns", "100 ns", "1 µs", "10 µs", "100 µs"]):
        at = y(10**exponent)
        print(f'<line x1="{LEFT}" y1="{at:.1f}" x2="{LEFT + WIDTH}" y2="{at:.1f}" stroke="#ddd"/>')
        print(f'<text x="{LEFT - 8}" y="{at + 4:.1f}" text-anchor="end">{label}</text>')
    for keys in all_keys:
        print(f'<text x="{x(keys):.1f}" y="{TOP + HEIGHT + 18}" text-anchor="middle">{keys:,}</text>')
    print(f'<text x="{LEFT + WIDTH / 2}" y="{TOP + HEIGHT + 38}" text-anchor="middle">objects of 100 bytes</text>')
    print(f'<text x="{LEFT}" y="{TOP - 12}">one read</text>')
    for place, (name, shown, color, _) in enumerate(SERIES):
        series = points.get(name)
        if not series:
            continue
        path = " ".join(f"{x(keys):.1f},{y(nanoseconds):.1f}" for keys, nanoseconds in series)
        print(f'<polyline points="{path}" fill="none" stroke="{color}" stroke-width="2"/>')
        for keys, nanoseconds in series:
            print(f'<circle cx="{x(keys):.1f}" cy="{y(nanoseconds):.1f}" r="3" fill="{color}"/>')
        at = TOP + 14 + 18 * place
        print(f'<rect x="{LEFT + WIDTH + 24}" y="{at - 9}" width="12" height="12" fill="{color}"/>')
        print(f'<text x="{LEFT + WIDTH + 42}" y="{at + 1}">{shown}</text>')
    print("</svg>")


if __name__ == "__main__":
    main()
