"""Writes tests/fixtures/reduction_output_size.csv: what jaxlib answers for the output size of approximate top-k.

Run with a Python that has jax:  JAX_PLATFORMS=cpu python scripts/make-reduction-sizes.py
"""

import math
import pathlib
import random

import jaxlib
import numpy as np
from jaxlib import _jax

random.seed(0)
arguments = set()


def add(n, rank, k, recall, override=-1):
    # From a reduction of 2^31 on, XLA's own shift overflows an int.
    if 1 <= k <= n < 2**63 and override < 2**63 and (override < 0 or override >= n):
        arguments.add((n, rank, k, float(np.float32(recall)), override))


recalls = [1e-45, 1e-6, 0.01, 0.5, 0.7, 0.85, 0.9, 0.95, 0.99, 0.999, 0.99999, 1 - 2**-24, 1.0]
sizes = [1, 2, 100, 127, 128, 129, 255, 256, 257, 1000, 1023, 1024, 1025, 2048, 2049, 3000, 100_000, 131_072,
         262_144, 1_000_000, 1_048_576, 2**31 - 1, 2**31, 10**10, 2**36, 2**40]
ks = [1, 2, 3, 10, 64, 100, 127, 128, 129, 1000, 1024, 2048, 10**6]
for n in sizes:
    for k in ks + [n]:
        for recall in recalls:
            if random.random() < 0.45:
                add(n, random.choice([1, 2, 3]), k, recall)
        recall = random.choice(recalls)
        for override in [n, n + 1, 2 * n, 8 * n + 3, 256 * n, 2**40, 2**62]:
            if random.random() < 0.4:
                add(n, random.choice([1, 2, 3]), k, recall, override)
for _ in range(1500):
    n = int(2 ** random.uniform(7, 32))
    k = int(2 ** random.uniform(0, min(math.log2(n), 14)))
    recall = 1 - 2 ** random.uniform(-14, 0)
    override = n * random.choice([1, 2, 4, 64]) if random.random() < 0.3 else -1
    add(n, random.choice([1, 2, 3, 4]), k, recall, override)
# Where one window more or less decides: sizes at a power of two of windows.
for _ in range(800):
    recall = random.choice([0.5, 0.9, 0.95, 0.99, 0.999])
    k = random.randint(2, 10 ** random.randint(1, 8))
    windows = int((1 - k) / math.log(float(np.float32(recall))))
    add(windows * 2 ** random.randint(0, 5) + random.choice([-1, 0, 1]), 2, k, recall)
# Where the logarithm's precision, f32 or f64, decides.
found = 0
while found < 200:
    recall = random.choice([0.5, 0.9, 0.95, 0.99, 0.999])
    k = random.randint(10**5, 10**8)
    f32 = int((1 - k) / float(np.log(np.float32(recall))))
    f64 = int((1 - k) / math.log(float(np.float32(recall))))
    n = max(f32, f64) * 2 ** random.randint(1, 4) - 1
    if f32 != f64 and n < 2**36:
        add(n, 2, k, recall)
        found += 1

rows = []
for n, rank, k, recall, override in sorted(arguments):
    size, log2 = _jax.approx_top_k_reduction_output_size(n, rank, k, recall, False, override)
    aggregated, _ = _jax.approx_top_k_reduction_output_size(n, rank, k, recall, True, override)
    if log2 < 31 or k == 1:
        rows.append(f"{n},{rank},{k},{recall!r},{override},{size},{log2},{aggregated}")
target = pathlib.Path(__file__).parent.parent / "tests/fixtures/reduction_output_size.csv"
target.parent.mkdir(parents=True, exist_ok=True)
header = (
    f"# jaxlib {jaxlib.__version__}'s approx_top_k_reduction_output_size; made by scripts/make-reduction-sizes.py.\n"
    "# recall_target is an f32, printed as an f64; override -1 is none; aggregated_size is with aggregate_to_topk.\n"
    "# Left out: reductions by 2^31 or more, where XLA's shift overflows.\n"
    "input_size,rank,k,recall_target,override,size,log2_reduction,aggregated_size\n"
)
target.write_text(header + "\n".join(rows) + "\n")
print(len(rows), "rows")
