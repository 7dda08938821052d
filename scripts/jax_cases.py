"""Cases of a function at a point as JAX computes them, for the scripts that write them to tests/fixtures.

A case is a function of arrays, at one point. Its tangents and cotangents are random, one of each for each floating
argument and result; the point is chosen: where there is a kink, a tie or a limit, JAX's convention is what is
recorded. An array is a text, its shape and then its elements, each as the shortest decimal that reads back as itself.

    results   the function's
    jvp       the tangents of the floating results
    vjp       the cotangents of the floating arguments
    hvp       those of vjp, differentiated in the direction of the tangents (forward over reverse)
    vhp       those of vjp, transposed and applied to the tangents (reverse over reverse)

Of a floating scalar, the cotangent is 1, and vjp is the gradient. Where JAX has no reverse derivative, there is jvp
only.
"""

import json
import os
import pathlib
import zlib

os.environ["JAX_PLATFORMS"] = "cpu"

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

jax.config.update("jax_enable_x64", True)
inf, nan = np.inf, np.nan
cases = {}


def text(array):
    array = np.asarray(array)
    dtype = "pred" if array.dtype == bool else array.dtype.kind.replace("i", "s") + str(8 * array.dtype.itemsize)
    dims = ",".join(map(str, array.shape))
    elements = (repr(float(x)) if array.dtype.kind == "f" else str(int(x)) for x in array.ravel())
    return " ".join([f"{dtype}[{dims}]", *elements]).replace(".0 ", " ").removesuffix(".0")


def floating(arrays):
    return [array for array in arrays if np.asarray(array).dtype.kind == "f"]


def case(name, function, *arguments, reverse=True):
    """Records a case; lists of numbers are arrays of f64, or of s32 where all are integers."""
    random = np.random.default_rng(zlib.crc32(name.encode()))
    directions = lambda arrays: [np.round(random.uniform(-1, 1, np.shape(x)), 3) for x in arrays]
    arguments = [np.asarray(x) for x in arguments]
    arguments = [x.astype(np.int32) if x.dtype == np.int64 else x for x in arguments]
    point = floating(arguments)

    def call(*floats):
        floats = iter(floats)
        results = function(*[next(floats) if x.dtype.kind == "f" else jnp.asarray(x) for x in arguments])
        return tuple(results) if isinstance(results, (tuple, list)) else (results,)

    def only_floats(*floats):
        return tuple(floating_results(call(*floats)))

    def floating_results(results):
        return [x for x in results if jnp.issubdtype(x.dtype, jnp.floating)]

    results = call(*map(jnp.asarray, point))
    floats = floating_results(results)
    tangents = directions(point)
    scalar = len(results) == 1 and results[0].shape == ()
    cotangents = [np.ones(())] if scalar else directions(floats)
    record = {"arguments": arguments, "tangents": tangents, "cotangents": cotangents, "results": results}
    record["jvp"] = jax.jvp(only_floats, tuple(point), tuple(tangents))[1]
    if reverse:

        def gradient(*floats):
            return jax.vjp(only_floats, *floats)[1](tuple(map(jnp.asarray, cotangents)))

        record["vjp"] = gradient(*point)
        record["hvp"] = jax.jvp(gradient, tuple(point), tuple(tangents))[1]
        record["vhp"] = jax.vjp(gradient, *map(jnp.asarray, point))[1](tuple(map(jnp.asarray, tangents)))
    assert name not in cases, name
    cases[name] = {key: [text(array) for array in arrays] for key, arrays in record.items()}


def write(fixture, script):
    """Writes all cases to a file of tests/fixtures."""
    target = pathlib.Path(__file__).parent.parent / "tests/fixtures" / fixture
    made_by = f"scripts/{script} with jax {jax.__version__}"
    lines = []
    for name, record in cases.items():
        fields = [f"    {json.dumps(key)}: {json.dumps(arrays)}" for key, arrays in record.items()]
        lines.append(f"  {json.dumps(name)}: {{\n" + ",\n".join(fields) + "\n  }")
    target.write_text(f'{{"made_by": {json.dumps(made_by)},\n"cases": {{\n' + ",\n".join(lines) + "\n}}\n")
    print(len(cases), "cases,", target.stat().st_size, "bytes")
