#!/usr/bin/env python3
"""Measures the engine on random-weight models of the 300 M and 1 B shapes and prints docs/results/engine.md's tables.

    bench/engine_results.py [--espalier build/release/espalier] [--models FOLDER] [--only 300M:Q4_K_M,1B:F16]

Makes the models it needs (about 5 GB; kept in FOLDER, default ~/.cache/espalier/bench-models). Wants a quiet machine:
under contention ratios spread, and the quartiles beside them say so. All of it takes about a quarter of an hour.
"""
import argparse
import json
import os
import subprocess
import sys

SHAPES = {
    "300M": "--layers 24 --embedding-length 1024 --feed-forward-length 2816 --heads 16 --kv-heads 4 --vocab 32000",
    "1B": "--layers 22 --embedding-length 2048 --feed-forward-length 5632 --heads 32 --kv-heads 4 --vocab 32000",
}
TYPES = {"300M": ["F16", "Q8_0", "Q4_0", "Q4_K_M"], "1B": ["F16", "Q4_K_M"]}


def run(espalier, *arguments):
    command = [espalier, *arguments, "--json"]
    print("$ espalier " + " ".join(arguments), file=sys.stderr, flush=True)
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode != 0:
        sys.exit(f"{' '.join(command)}: exit code {done.returncode}: {done.stderr.strip()}")
    return json.loads(done.stdout)


def make(espalier, folder, shape, kind):
    path = os.path.join(folder, f"random-{shape}-{kind}.gguf")
    if not os.path.exists(path):
        run(espalier, "generate-model", *SHAPES[shape].split(), "--type", kind, "--seed", "1", "-o", path)
    return path


def drop(espalier, path, share):
    """Blocks to drop for about `share` of all blocks' bytes, spread evenly over the depth."""
    report = run(espalier, "inspect", path)
    blocks = report["blocks"]
    total = sum(b["resident_bytes"] for b in blocks)
    layers = len(blocks) // 2
    by_name = {b["block"]: b["resident_bytes"] for b in blocks}
    # Layers in the order of a van der Corput sequence: every prefix is spread evenly.
    def spread(i):
        x, f = 0.0, 0.5
        while i:
            x, i, f = x + f * (i & 1), i >> 1, f / 2
        return x
    order = sorted(range(layers), key=lambda il: spread(il + 1))
    names, gone = [], 0
    for il in order:
        for name in (f"f{il}", f"a{il}"):
            if gone + by_name[name] / 2 < share * total:
                names.append(name)
                gone += by_name[name]
    return ",".join(names), gone / total


def spread(report, key):
    low, high = report[key + "_quartiles"]
    return f"{report[key]:.3f} ({low:.3f}-{high:.3f})"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--espalier", default="build/release/espalier")
    parser.add_argument("--models", default=os.path.expanduser("~/.cache/espalier/bench-models"))
    parser.add_argument("--only", help="SHAPE:TYPE, separated by commas; default: all")
    parser.add_argument("--threads", default="0")
    options = parser.parse_args()
    os.makedirs(options.models, exist_ok=True)
    wanted = [tuple(w.split(":")) for w in options.only.split(",")] if options.only else \
        [(shape, kind) for shape in TYPES for kind in TYPES[shape]]
    paths = {(s, t): make(options.espalier, options.models, s, t) for s, t in wanted}
    repetitions = {"300M": "9", "1B": "5"}
    threads = ["-t", options.threads]

    print("### Dense against libllama in one process, alternating: ratio of speeds, median (quartiles)\n")
    print("| shape | weights | prefill tok/s | prefill ratio | decode tok/s | decode GB/s | of bandwidth | decode ratio |")
    print("|---|---|---|---|---|---|---|---|")
    for (shape, kind), path in paths.items():
        r = run(options.espalier, "bench", path, "--vs-libllama", "-p", "512" if shape == "300M" else "256", "-n", "32",
                "-r", repetitions[shape], *threads)
        assert r["logits_equal"], path
        print(f"| {shape} | {kind} | {r['prefill_tokens_per_second']:.0f} | {spread(r, 'prefill_ratio')} "
              f"| {r['decode_tokens_per_second']:.1f} | {r['decode_gigabytes_per_second']:.1f} "
              f"| {r['decode_share_of_bandwidth']:.0%} | {spread(r, 'decode_ratio')} |", flush=True)

    print("\n### Blocks dropped: decode speed-up over dense against the ratio of bytes read\n")
    print("| shape | weights | block bytes dropped | byte ratio | decode speed-up | speed-up / byte ratio |")
    print("|---|---|---|---|---|---|")
    for (shape, kind), path in paths.items():
        for share in (0.25, 0.5, 0.75):
            names, gone = drop(options.espalier, path, share)
            r = run(options.espalier, "bench", path, "--drop", names, "-p", "0", "-n", "32", "-r", repetitions[shape],
                    *threads)
            print(f"| {shape} | {kind} | {gone:.0%} | {r['decode_byte_ratio']:.2f} | {spread(r, 'decode_speed_up')} "
                  f"| {r['decode_speed_up_per_byte_ratio']:.3f} |", flush=True)

    print("\n### Residency: all blocks released and restored, three cycles\n")
    print("| shape | weights | store | released | anonymous memory given back | release ms | restore GB/s from page cache "
          "| rebuild ms |")
    print("|---|---|---|---|---|---|---|---|")
    for (shape, kind), path in paths.items():
        r = run(options.espalier, "bench", "residency", path, "--cycles", "3", *threads)
        for store in r["stores"]:
            cycles = store["cycles"]
            column = lambda key, form: " / ".join(form.format(c[key]) for c in cycles)
            print(f"| {shape} | {kind} | {store['store']} | {cycles[0]['released_bytes'] / 1e6:.0f} MB "
                  f"| {column('anonymous_share_of_released', '{:.2%}')} | {column('release_ms', '{:.1f}')} "
                  f"| {column('restore_gigabytes_per_second', '{:.2f}')} | {column('rebuild_ms', '{:.2f}')} |", flush=True)


if __name__ == "__main__":
    main()
