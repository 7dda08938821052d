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
    """The k nearest rows [n, d] of the database to queries [..., d]: values f32[..., k], indices s32[..., k]."""
    leading = queries.shape[:-1]
    queries = queries.reshape(-1, queries.shape[-1])
    found = (queries.shape[0], k)
    call = jax.ffi.ffi_call(
        "xlann_fused_search",
        (jax.ShapeDtypeStruct(found, jnp.float32), jax.ShapeDtypeStruct(found, jnp.int32)),
        vmap_method="broadcast_all",
    )
    values, indices = call(queries, database, *half_norms, metric="l2" if half_norms else "inner_product")
    return values.reshape(leading + (k,)), indices.reshape(leading + (k,))


def select_k(k, operand, least):
    """The k greatest or least along the last dimension."""
    found = operand.shape[:-1] + (k,)
    call = jax.ffi.ffi_call(
        "xlann_select_k",
        (jax.ShapeDtypeStruct(found, operand.dtype), jax.ShapeDtypeStruct(found, jnp.int32)),
        vmap_method="broadcast_all",
    )
    return call(operand, least=least)


def jax_max(k, queries, database):
    return jax.lax.approx_max_k(queries @ database.T, k)


def jax_min(k, queries, database, half_norms):
    return jax.lax.approx_min_k(half_norms - queries @ database.T, k)


def check(found, expected):
    values, their_values = np.asarray(found[0]), np.asarray(expected[0])
    np.testing.assert_allclose(values, their_values, rtol=1e-5, atol=1e-4)
    k = values.shape[-1]
    indices, their_indices = np.reshape(found[1], (-1, k)), np.reshape(expected[1], (-1, k))
    common = sum(len(np.intersect1d(ours, theirs)) for ours, theirs in zip(indices, their_indices))
    assert common / indices.size > 0.999, common / indices.size


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
        "approx_max_k(q @ db.T)": (
            functools.partial(jax_max, k),
            functools.partial(fused_search, k),
            (queries, database),
        ),
        "approx_min_k(norms - q @ db.T)": (
            functools.partial(jax_min, k),
            functools.partial(fused_search, k),
            (queries, database, half_norms),
        ),
        "approx_max_k(scores)": (
            functools.partial(jax.lax.approx_max_k, k=k),
            functools.partial(select_k, k, least=False),
            (scores,),
        ),
        "approx_min_k(scores)": (
            functools.partial(jax.lax.approx_min_k, k=k),
            functools.partial(select_k, k, least=True),
            (scores,),
        ),
    }
    for name, (theirs, ours, arguments) in searches.items():
        theirs, ours = jax.jit(theirs), jax.jit(ours)
        arguments = [jnp.asarray(argument) for argument in arguments]
        found = ours(*arguments)
        check(found, theirs(*arguments))
        # A few queries, or rows of scores, one at a time: all in one call, for which the database is copied for each.
        each = jax.vmap(ours, in_axes=(0,) + (None,) * (len(arguments) - 1))
        check(each(arguments[0][:4], *arguments[1:]), [result[:4] for result in found])
        seconds, their_seconds = median_seconds(ours, arguments, 5), median_seconds(theirs, arguments, 3)
        print(
            f"{name}: {seconds * 1e3:.2f} ms, JAX {their_seconds * 1e3:.2f} ms, "
            f"{their_seconds / seconds:.1f} times faster"
        )


if __name__ == "__main__":
    main(sys.argv[1], *map(int, sys.argv[2:]))
