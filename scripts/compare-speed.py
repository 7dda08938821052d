#!/usr/bin/env python3
"""Times searches and top-k beside JAX, FAISS and the machine's limits, in one run, and prints a table in Markdown.

    scripts/compare-speed.py [--repeat 7] [--only TEXT] [--without jax,faiss]

What xlann takes is from the command line's --json: queries and results cross from and to the host, the database is on
the device beforehand. Times are medians. Needs target/release/xlann (cargo build --release), target/kernels/plain/bench
(scripts/test-kernels) and, for the peers, a python that has jax and faiss.
"""
import argparse
import json
import pathlib
import statistics
import subprocess
import tempfile
import time

import numpy as np

ROOT = pathlib.Path(__file__).resolve().parent.parent
XLANN = ROOT / "target/release/xlann"
BENCH = ROOT / "target/kernels/plain/bench"


def search(queries, rows, width, k, metric="ip", precision="exact", peers="", limit="f32"):
    return dict(kind="search", queries=queries, rows=rows, width=width, k=k, metric=metric, precision=precision,
                peers=peers.split(), limit=limit)


def top_k(k, least=False):
    return dict(kind="topk", rows=128, width=100_000, k=k, least=least, peers=["jax"], limit="read")


WORK = {
    "search ip, q 128, n 100k": search(128, 100_000, 128, 10, peers="jax faiss"),
    "search l2, q 1024, n 100k": search(1024, 100_000, 128, 10, "l2", peers="jax faiss"),
    "search ip, q 1024, n 1M": search(1024, 1_000_000, 128, 10, peers="jax faiss"),
    "the same in bf16": search(1024, 1_000_000, 128, 10, precision="bf16", limit="bf16"),
    "the same in int8": search(1024, 1_000_000, 128, 10, precision="int8", limit="int8"),
    "search ip, q 1024, n 100k, d 50, k 100": search(1024, 100_000, 50, 100),
    "search ip, q 1024, n 100k, d 100, k 100": search(1024, 100_000, 100, 100),
    "search ip, q 1024, n 100k, d 768, k 100": search(1024, 100_000, 768, 100),
    "search ip, q 1, n 1M": search(1, 1_000_000, 128, 10, limit="read", peers="jax faiss"),
    "q 1, in bf16": search(1, 1_000_000, 128, 10, precision="bf16", limit="read"),
    "q 1, in int8": search(1, 1_000_000, 128, 10, precision="int8", limit="read"),
    "topk f32[128,100000], k 10": top_k(10),
    "topk, k 100": top_k(100),
    "topk --min, k 10": top_k(10, True),
}
BYTES = {"exact": 4, "bf16": 2, "int8": 1}


def median(call, repeat):
    call()
    seconds = []
    for _ in range(repeat):
        start = time.perf_counter()
        call()
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds)


class Data:
    """Matrices of normally distributed numbers, in files that are made once."""

    def __init__(self, folder):
        self.folder = folder

    def file(self, rows, width, seed):
        path = self.folder / f"{rows}x{width}-{seed}.npy"
        if not path.exists():
            random = np.random.default_rng(seed)
            np.save(path, random.standard_normal((rows, width), dtype=np.float32))
        return path

    def files(self, work):
        if work["kind"] == "topk":
            return [self.file(work["rows"], work["width"], 1)]
        return [self.file(work["rows"], work["width"], 1), self.file(work["queries"], work["width"], 2)]


def of_xlann(work, files, repeat):
    if work["kind"] == "topk":
        arguments = ["topk", "--input", files[0], *(["--min"] if work["least"] else [])]
    else:
        arguments = ["search", "--database", files[0], "--queries", files[1], "--metric", work["metric"],
                     "--batch", work["queries"], "--precision", work["precision"]]
        if work["precision"] != "exact":
            arguments.append("--check-recall")
    # Single queries are answered in a millisecond or so.
    repeat *= 10 if work.get("queries") == 1 else 1
    arguments += ["-k", work["k"], "--repeat", repeat, "--json"]
    ran = subprocess.run([str(XLANN), *map(str, arguments)], check=True, stdout=subprocess.PIPE, text=True)
    said = json.loads(ran.stdout)
    return said.get("seconds_per_batch", said.get("seconds")), said.get("recall")


def of_jax(work, files, repeat):
    import jax

    k = work["k"]
    arrays = [np.load(file) for file in files]
    if work["kind"] == "topk":
        program = (lambda s: jax.lax.approx_min_k(s, k)) if work["least"] else (lambda s: jax.lax.approx_max_k(s, k))
    elif work["metric"] == "ip":
        program = lambda d, q: jax.lax.approx_max_k(q @ d.T, k)
    else:
        program = lambda d, q, h: jax.lax.approx_min_k(h - q @ d.T, k)
        arrays.append(np.square(arrays[0]).sum(1) / 2)
    program, arrays = jax.jit(program), [jax.device_put(array) for array in arrays]
    return median(lambda: jax.block_until_ready(program(*arrays)), repeat)


def of_faiss(work, files, repeat):
    import faiss

    database, queries = [np.load(file) for file in files]
    index = (faiss.IndexFlatIP if work["metric"] == "ip" else faiss.IndexFlatL2)(work["width"])
    index.add(database)
    return median(lambda: index.search(queries, work["k"]), repeat)


def limits():
    """Operations and bytes a second."""
    return json.loads(subprocess.run([str(BENCH), "--limits"], check=True, stdout=subprocess.PIPE, text=True).stdout)


def share(work, seconds, limit):
    """What part of the machine's limit is used."""
    if work["kind"] == "topk":
        return 4 * work["rows"] * work["width"] / seconds / limit["read"]
    if work["limit"] == "read":
        return BYTES[work["precision"]] * work["rows"] * work["width"] / seconds / limit["read"]
    return 2 * work["queries"] * work["rows"] * work["width"] / seconds / limit[work["limit"]]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeat", type=int, default=7)
    parser.add_argument("--only", default="", help="rows whose name has this text")
    parser.add_argument("--without", default="", help="peers to leave out, with commas between them")
    arguments = parser.parse_args()
    without = arguments.without.split(",")
    print("| work | xlann | of the limit | recall | JAX | FAISS flat |\n|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        data = Data(pathlib.Path(folder))
        for name, work in WORK.items():
            if arguments.only not in name:
                continue
            files = data.files(work)
            limit = limits()
            seconds, recall = of_xlann(work, files, arguments.repeat)
            cells = [name, f"{seconds * 1e3:.4g} ms", f"{share(work, seconds, limit):.0%} ({work['limit']})",
                     "" if recall is None else f"{recall:.4f}"]
            for peer, of_peer in [("jax", of_jax), ("faiss", of_faiss)]:
                timed = peer in work["peers"] and peer not in without
                theirs = of_peer(work, files, min(arguments.repeat, 3)) if timed else None
                cells.append(f"{theirs * 1e3:.4g} ms, {theirs / seconds:.3g} x" if timed else "")
            print("|", " | ".join(cells), "|", flush=True)


if __name__ == "__main__":
    main()
