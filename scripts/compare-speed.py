#!/usr/bin/env python3
"""Times searches and top-k beside JAX, FAISS and the machine's limits, in one run, and prints a table in Markdown.

    scripts/compare-speed.py [--threads 2] [--rounds 5] [--only TEXT] [--without jax,faiss]

What xlann takes is from the command line's --json: queries and results cross from and to the host, the database is on
the device beforehand. In each round all are measured one after another; times, shares and ratios are the medians of
the rounds', as a machine that others use is not as fast at all times. A recall below what was asked for is a failure.
All run on as many processors as there are threads.

Needs target/release/xlann (cargo build --release), target/kernels/plain/bench (scripts/test-kernels), the demo's
vectors in the cache (scripts/demo) and, for the peers, a python that has jax and faiss.
"""
import argparse
import json
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time

import numpy as np

ROOT = pathlib.Path(__file__).resolve().parent.parent
XLANN = ROOT / "target/release/xlann"
BENCH = ROOT / "target/kernels/plain/bench"
RECALL = 0.95


def search(queries, rows, width, k, metric="ip", precision="exact", peers="", limit="f32", beside=None):
    """`beside` names the exact search that one of lower precision is compared with."""
    return dict(kind="search", queries=queries, rows=rows, width=width, k=k, metric=metric, precision=precision,
                peers=peers.split(), limit=limit, beside=beside)


def top_k(k, least=False):
    return dict(kind="topk", rows=128, width=100_000, k=k, least=least, peers=["jax"], limit="read", beside=None)


MANY, WORDS, ONE = "search ip, q 1024, n 1M", "search ip, q 1024, the demo's vectors", "search ip, q 1, n 1M"
WORK = {
    "search ip, q 128, n 100k": search(128, 100_000, 128, 10, peers="jax faiss"),
    "search l2, q 1024, n 100k": search(1024, 100_000, 128, 10, "l2", peers="jax faiss"),
    MANY: search(1024, 1_000_000, 128, 10, peers="jax faiss"),
    MANY + ", bf16": search(1024, 1_000_000, 128, 10, precision="bf16", limit="bf16", beside=MANY),
    MANY + ", int8": search(1024, 1_000_000, 128, 10, precision="int8", limit="int8", beside=MANY),
    WORDS: search(1024, 400_000, 50, 10),
    WORDS + ", int8": search(1024, 400_000, 50, 10, precision="int8", limit="int8", beside=WORDS),
    "search ip, q 1024, n 100k, d 50, k 100": search(1024, 100_000, 50, 100),
    "search ip, q 1024, n 100k, d 100, k 100": search(1024, 100_000, 100, 100),
    "search ip, q 1024, n 100k, d 768, k 100": search(1024, 100_000, 768, 100),
    ONE: search(1, 1_000_000, 128, 10, limit="read", peers="jax faiss"),
    ONE + ", bf16": search(1, 1_000_000, 128, 10, precision="bf16", limit="read", beside=ONE),
    ONE + ", int8": search(1, 1_000_000, 128, 10, precision="int8", limit="read", beside=ONE),
    "topk f32[128,100000], k 10": top_k(10),
    "topk f32[128,100000], k 100": top_k(100),
    "topk --min f32[128,100000], k 10": top_k(10, True),
}
BYTES = {"exact": 4, "bf16": 2, "int8": 1}


def cache():
    home = os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache"
    return pathlib.Path(os.environ.get("XLANN_CACHE") or pathlib.Path(home) / "xlann")


def seconds_of(call):
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


class Data:
    """Matrices of normally distributed numbers, and word vectors, in files that are made once."""

    def __init__(self, folder):
        self.folder = folder

    def file(self, name, make):
        path = self.folder / f"{name}.npy"
        if not path.exists():
            np.save(path, make())
        return path

    def normal(self, rows, width, seed):
        random = np.random.default_rng(seed)
        make = lambda: random.standard_normal((rows, width), dtype=np.float32)
        return self.file(f"{rows}x{width}-{seed}", make)

    def words(self):
        [path] = (cache() / "glove").glob("*.npy")
        vectors = np.ascontiguousarray(np.load(path), dtype=np.float32)
        return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)

    def files(self, name, work):
        if work["kind"] == "topk":
            return [self.normal(work["rows"], work["width"], 1)]
        if name.startswith(WORDS):
            some = lambda: self.words()[:: work["rows"] // work["queries"]][: work["queries"]]
            return [self.file("words", self.words), self.file("some-words", some)]
        return [self.normal(work["rows"], work["width"], 1), self.normal(work["queries"], work["width"], 2)]


def of_xlann(work, files, threads, checks):
    if work["kind"] == "topk":
        arguments = ["topk", "--input", files[0], *(["--min"] if work["least"] else [])]
    else:
        arguments = ["search", "--database", files[0], "--queries", files[1], "--metric", work["metric"],
                     "--batch", work["queries"], "--precision", work["precision"], "--recall-target", RECALL]
        arguments += ["--check-recall"] if checks else []
    # Single queries are answered in a few milliseconds.
    repeat = 50 if work.get("queries") == 1 or work["kind"] == "topk" else 7
    arguments += ["-k", work["k"], "--repeat", repeat, "--threads", threads, "--json"]
    ran = subprocess.run([str(XLANN), *map(str, arguments)], check=True, stdout=subprocess.PIPE, text=True)
    said = json.loads(ran.stdout)
    return said.get("seconds_per_batch", said.get("seconds")), said.get("recall")


def jax_of(work, files):
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
    return lambda: jax.block_until_ready(program(*arrays))


def faiss_of(work, files):
    import faiss

    database, queries = [np.load(file) for file in files]
    index = (faiss.IndexFlatIP if work["metric"] == "ip" else faiss.IndexFlatL2)(work["width"])
    index.add(database)
    return lambda: index.search(queries, work["k"])


def limits(threads):
    """Operations and bytes a second."""
    command = [str(BENCH), "--threads", str(threads), "--limits"]
    ran = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    return json.loads(ran.stdout)


def share(work, seconds, limit):
    """What part of the machine's limit is used."""
    if limit[work["limit"]] is None:
        return float("nan")
    if work["limit"] == "read":
        return BYTES[work.get("precision", "exact")] * work["rows"] * work["width"] / seconds / limit["read"]
    return 2 * work["queries"] * work["rows"] * work["width"] / seconds / limit[work["limit"]]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", default="", help="rows whose name has this text")
    parser.add_argument("--without", default="", help="peers to leave out, with commas between them")
    arguments = parser.parse_args()
    # Before a peer is loaded, which counts them.
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: arguments.threads])
    without, threads = arguments.without.split(","), arguments.threads
    failed = False
    print("| work | xlann | of the limit | to exact | recall | JAX | FAISS flat |\n|---|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        data = Data(pathlib.Path(folder))
        for name, work in WORK.items():
            if arguments.only not in name:
                continue
            files = data.files(name, work)
            peers = {}
            for peer, of in [("jax", jax_of), ("faiss", faiss_of)]:
                if peer in work["peers"] and peer not in without:
                    peers[peer] = of(work, files)
                    peers[peer]()
            times, shares, exact, recall = [], [], [], None
            others = {peer: [] for peer in peers}
            for round in range(arguments.rounds):
                limit = limits(threads)
                seconds, found = of_xlann(work, files, threads, round == 0)
                recall = found if round == 0 else recall
                times.append(seconds)
                shares.append(share(work, seconds, limit))
                if work["beside"]:
                    exact.append(of_xlann(WORK[work["beside"]], files, threads, False)[0] / seconds)
                for peer, call in peers.items():
                    # Seconds are long enough for one.
                    first = seconds_of(call)
                    first = first if first > 1 else statistics.median(seconds_of(call) for _ in range(5))
                    others[peer].append((first, first / seconds))
            median = statistics.median
            cells = [name, f"{median(times) * 1e3:.4g} ms", f"{median(shares):.0%} of {work['limit']}",
                     f"{median(exact):.3g} x" if exact else "", "" if recall is None else f"{recall:.4f}"]
            for peer in ["jax", "faiss"]:
                both = others.get(peer)
                theirs = [median(one) for one in zip(*both)] if both else None
                cells.append(f"{theirs[0] * 1e3:.4g} ms, {theirs[1]:.3g} x" if theirs else "")
            print("|", " | ".join(cells), "|", flush=True)
            if recall is not None and recall < RECALL:
                print(f"{name}: the recall is {recall}, below {RECALL}", file=sys.stderr)
                failed = True
    sys.exit(failed)


if __name__ == "__main__":
    main()
