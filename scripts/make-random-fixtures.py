"""Writes tests/fixtures/random.json: random keys and numbers of jax.random, for tests/transforms/random.rs.

Run with a Python that has JAX (pip install jax==0.10.2):  python scripts/make-random-fixtures.py

A case is a kind of draw, what it takes, and what JAX gives. An array is a text, its shape and then the bits of each
element in hexadecimal, so that nothing is rounded. Keys are the words of jax.random.PRNGKey, in a 64-bit JAX unless the
kind says otherwise.
"""

import json
import os
import pathlib

os.environ["JAX_PLATFORMS"] = "cpu"

import jax
import jax.numpy as jnp
import numpy as np

jax.config.update("jax_enable_x64", True)
assert jax.config.jax_threefry_partitionable
cases = []


def text(array):
    array = np.asarray(array)
    kinds = {"i": "s", "u": "u", "f": "f", "V": "bf", "b": "pred"}
    size = array.dtype.itemsize
    dtype = "pred" if array.dtype == bool else kinds[array.dtype.kind] + str(8 * size)
    words = array.view(f"u{size}").ravel()
    return " ".join([f"{dtype}[{','.join(map(str, array.shape))}]", *(f"{word:0{2 * size}x}" for word in words)])


def case(draw, key, result, **parameters):
    cases.append({"draw": draw, "key": text(key), **parameters, "result": text(result)})


def shape(dtype, dims):
    return f"{text(np.empty(0, dtype)).split('[')[0]}[{','.join(map(str, dims))}]"


keys = [jax.random.PRNGKey(seed) for seed in (0, 42, -3)]
key = keys[1]
for seed in (0, 1, 42, 2**32 - 1, 2**32 + 7, 2**63 - 1, -1, -(2**40)):
    case("key", jax.random.PRNGKey(seed), jax.random.PRNGKey(seed), seed=seed)
    with jax.enable_x64(False):
        case("key_of_32_bits", jax.random.PRNGKey(seed), jax.random.PRNGKey(seed), seed=seed)
for seed in (np.int64(-5), np.uint64(2**63 + 9), np.int32(-7), np.uint32(2**31), np.int8(-2), np.uint16(65535)):
    case("key_of", key, jax.random.PRNGKey(seed), arguments=[text(seed)])

for each in keys:
    for count in (1, 2, 3, 7):
        case("split", each, jax.random.split(each, count), count=count)
    for data in (0, 1, 2**32 - 1):
        case("fold_in", each, jax.random.fold_in(each, data), arguments=[text(np.uint32(data))])
case("fold_in", key, jax.random.fold_in(key, np.int32(-1)), arguments=[text(np.int32(-1))])

for dims in ((), (1,), (5,), (3, 4), (2, 1, 3), (2, 0)):
    for dtype in (np.uint8, np.uint16, np.uint32, np.uint64):
        case("bits", key, jax.random.bits(key, dims, dtype), shape=shape(dtype, dims))
case("bits", keys[2], jax.random.bits(keys[2], (9,), np.uint64), shape="u64[9]")

floats = (jnp.float16, jnp.bfloat16, jnp.float32, jnp.float64)
for dtype in floats:
    for dims in ((), (7,), (4, 5)):
        case("uniform", key, jax.random.uniform(key, dims, dtype), shape=shape(dtype, dims), bounds=[0, 1])
    for low, high in ((-2.5, 0.3), (10, 10.5), (-1e4, 1e4)):
        numbers = jax.random.uniform(key, (64,), dtype, low, high)
        case("uniform", key, numbers, shape=shape(dtype, (64,)), bounds=[low, high])
    low, high = np.array([[-1], [5]], dtype), np.array([6, 7, 8], dtype)
    numbers = jax.random.uniform(key, (2, 3), dtype, low, high)
    case("uniform", key, numbers, shape=shape(dtype, (2, 3)), arguments=[text(low), text(high)])
    case("normal", key, jax.random.normal(key, (), dtype), shape=shape(dtype, ()))
    for each in keys:
        case("normal", each, jax.random.normal(each, (32, 8), dtype), shape=shape(dtype, (32, 8)))
    p = np.array([0, 0.1, 0.5, 0.9, 1], dtype)
    case("bernoulli", key, jax.random.bernoulli(key, p, (20, 5)), arguments=[text(p)], dims=[20, 5])
    case("gumbel", key, jax.random.gumbel(key, (64,), dtype), shape=shape(dtype, (64,)))
    logits = np.array([[0, 1, 2, 3], [0, -1, 0.5, -np.inf], [5, 5, 5, 5]], dtype)
    case("categorical", key, jax.random.categorical(key, logits).astype(np.int32), arguments=[text(logits)], axis=1)
    columns = jax.random.categorical(key, logits, axis=0).astype(np.int32)
    case("categorical", key, columns, arguments=[text(logits)], axis=0)

x = np.linspace(-1, 1, 65)
x = np.concatenate([x, np.nextafter(x[[0, -1]], 0), 1 - np.logspace(-14, -2, 13), [1.5]])
for dtype in floats:
    case("erf_inv", key, jax.jit(jax.lax.erf_inv)(x.astype(dtype)), arguments=[text(x.astype(dtype))])

ranges = {
    np.int8: [(-128, 128), (-3, 5)],
    np.uint8: [(0, 256), (7, 8)],
    np.int16: [(-300, 300)],
    np.uint16: [(0, 50000)],
    np.int32: [(-(2**31), 2**31), (0, 10), (-7, 2**30), (5, 2**17)],
    np.uint32: [(0, 2**32), (1, 2**31 + 5), (0, 3)],
    np.int64: [(-(2**62), 2**62), (-5, 6), (0, 2**40)],
    np.uint64: [(0, 2**63 - 1), (3, 1000)],
}
for dtype, bounds in ranges.items():
    for low, high in bounds:
        integers = jax.random.randint(key, (17,), low, high, dtype)
        case("randint", key, integers, shape=shape(dtype, (17,)), bounds=[low, high])

for size in (0, 1, 2, 10, 300, 1625, 1626):
    case("permutation", key, jax.random.permutation(key, np.arange(size, dtype=np.int16)), size=size)
matrix = np.arange(24, dtype=np.float32).reshape(4, 6)
for axis in (0, 1):
    permuted = jax.random.permutation(key, matrix, axis)
    case("permutation_of", key, permuted, arguments=[text(matrix)], axis=axis)

batch = jax.random.split(key, 3)
for draw in ("normal", "permutation"):
    of_key = {
        "normal": lambda key: jax.random.normal(key, (5,), jnp.float32),
        "permutation": lambda key: jax.random.permutation(key, np.arange(9, dtype=np.int16)),
    }[draw]
    shapes = {"normal": {"shape": "f32[5]"}, "permutation": {"size": 9}}[draw]
    cases.append({"draw": draw, "keys": text(batch), **shapes, "result": text(jax.vmap(of_key)(batch))})

path = pathlib.Path(__file__).parent.parent / "tests/fixtures/random.json"
lines = ",\n".join(json.dumps(case) for case in cases)
path.write_text(f'{{"jax": "{jax.__version__}", "cases": [\n{lines}\n]}}\n')
print(f"{path.name}: {len(cases)} cases, {path.stat().st_size // 1000} kB")
