"""The kernels of xlann in JAX: approx_max_k and approx_min_k of products, without the scores in memory.

    cargo build --release
    python examples/jax_kernels.py target/release/libxlann.so

Registers the handlers of the library, searches by each metric under jax.jit, checks the results against JAX's own, and
prints the time of both. Needs jax and numpy.
"""

import ctypes
import functools
import sys
import time

import jax
import jax.numpy as jnp
import numpy as np


def register(path):
    library = ctypes.CDLL(path)
    for name in ("xlann_fused_search", "xlann_select_k"):
        handler = jax.ffi.pycapsule(getattr(library, name))
        jax.ffi.register_ffi_target(name, handler, platform="cpu")


def fused_search(k, queries, database, *half_norms):
    """The k nearest rows of the database: values f32[q, k], indices s32[q, k]."""
    found = (queries.shape[0], k)
    call = jax.ffi.ffi_call(
        "xlann_fused_search",
        (jax.ShapeDtypeStruct(found, jnp.float32), jax.ShapeDtypeStruct(found, jnp.int32)),
    )
    return call(queries, database, *half_norms, metric="l2" if half_norms else "inner_product")


def select_k(k, operand, least):
    """The k greatest or least along the last dimension."""
    found = operand.shape[:-1] + (k,)
    call = jax.ffi.ffi_call(
        "xlann_select_k",
        (jax.ShapeDtypeStruct(found, operand.dtype), jax.ShapeDtypeStruct(found, jnp.int32)),
    )
    return call(operand, least=least)


def jax_max(k, queries, database):
    return jax.lax.approx_max_k(queries @ database.T, k)


def jax_min(k, queries, database, half_norms):
    return jax.lax.approx_min_k(half_norms - queries @ database.T, k)


def median_seconds(function, arguments, repeat):
    jax.block_until_ready(function(*arguments))
    seconds = []
    for _ in range(repeat):
        start = time.perf_counter()
        jax.block_until_ready(function(*arguments))
        seconds.append(time.perf_counter() - start)
    return sorted(seconds)[repeat // 2]


def main(path, rows=100_000, width=128, count=128, k=10):
    register(path)
    random = np.random.default_rng(1)
    database = random.standard_normal((rows, width), dtype=np.float32)
    queries = random.standard_normal((count, width), dtype=np.float32)
    half_norms = (database * database).sum(1) / 2
    scores = queries @ database.T
    searches = {
        "approx_max_k(q @ db.T)": (jax_max, fused_search, (queries, database)),
        "approx_min_k(norms - q @ db.T)": (jax_min, fused_search, (queries, database, half_norms)),
        "approx_max_k(scores)": (
            jax.lax.approx_max_k,
            functools.partial(select_k, least=False),
            (scores,),
        ),
        "approx_min_k(scores)": (
            jax.lax.approx_min_k,
            functools.partial(select_k, least=True),
            (scores,),
        ),
    }
    for name, (theirs, ours, arguments) in searches.items():
        if theirs in (jax_max, jax_min):
            theirs, ours = functools.partial(theirs, k), functools.partial(ours, k)
        else:
            theirs, ours = (lambda f: lambda x: f(x, k))(theirs), functools.partial(ours, k)
        theirs, ours = jax.jit(theirs), jax.jit(ours)
        arguments = [jnp.asarray(argument) for argument in arguments]
        (values, indices), (their_values, their_indices) = ours(*arguments), theirs(*arguments)
        np.testing.assert_allclose(values, their_values, rtol=1e-5, atol=1e-4)
        common = sum(len(set(a) & set(b)) for a, b in zip(np.asarray(indices), np.asarray(their_indices)))
        assert common / indices.size > 0.999, common / indices.size
        seconds, their_seconds = median_seconds(ours, arguments, 5), median_seconds(theirs, arguments, 3)
        print(
            f"{name}: {seconds * 1e3:.2f} ms, JAX {their_seconds * 1e3:.2f} ms, "
            f"{their_seconds / seconds:.1f} times faster"
        )


if __name__ == "__main__":
    main(sys.argv[1], *map(int, sys.argv[2:]))
