"""Writes tests/fixtures/functions.json: what JAX gives for the functions of src/functions, for tests/transforms/functions_jax.rs.

Run with a Python that has JAX (pip install jax==0.10.2):  python scripts/make-function-fixtures.py

What a case with derivatives is, and what is recorded of it, is told in jax_cases.py. Those in other dtypes, whose name
ends in one, have values only. For floats these are JAX's in f64, of arguments that the dtype holds exactly, rounded to
it; for integers, JAX's in the dtype.
"""

import pathlib

from jax_cases import case, cases, inf, jax, jnp, lax, nan, np, text, write
from ml_dtypes import bfloat16

random = np.random.default_rng(7)
normal = lambda *dims: np.round(random.normal(size=dims), 3)
grid = normal(3, 4)

# Sums of exponentials.
for name, function in [("softmax", jax.nn.softmax), ("log_softmax", jax.nn.log_softmax)]:
    case(f"{name}_rows", lambda x: function(x, 1), grid)
    case(f"{name}_columns", lambda x: function(x, 0), grid)
    case(f"{name}_far", lambda x: function(x, 0), [1000.0, -1000.0, 999.0])
    case(f"{name}_of_one", lambda x: function(x, 0), [3.0])
case("softmax_with_infinity", lambda x: jax.nn.softmax(x, 0), [-inf, 1.0, 2.0])
case("softmax_of_infinities", lambda x: jax.nn.softmax(x, 0), [-inf, -inf])
case("logsumexp_rows", lambda x: jax.nn.logsumexp(x, 1), grid)
case("logsumexp_of_all", jax.nn.logsumexp, grid)
case("logsumexp_far", jax.nn.logsumexp, [1000.0, -1000.0, 999.0])
case("logsumexp_with_infinity", jax.nn.logsumexp, [-inf, 1.0, 2.0])
case("logsumexp_of_infinities", jax.nn.logsumexp, [-inf, -inf])
case("logsumexp_of_infinity", jax.nn.logsumexp, [inf, 1.0])
case("logsumexp_of_nan", jax.nn.logsumexp, [nan, 1.0])

# Activations and bounds.
around = [-2.5, -0.75, 0.0, 0.5, 1.0, 3.25, -30.0, 30.0, -1e3, 1e3]
case("relu", jax.nn.relu, [*around, -0.0, nan, inf, -inf])
case("gelu", lambda x: jax.nn.gelu(x, approximate=False), around)
case("gelu_of_infinities", lambda x: jax.nn.gelu(x, approximate=False), [inf, -inf, nan])
case("gelu_tanh", jax.nn.gelu, around)
case("sigmoid", jax.nn.sigmoid, [*around, inf, -inf, nan])
case("clip", lambda x: jnp.clip(x, -1.0, 1.0), [-2.0, -1.0, 0.5, 1.0, 2.0, nan, inf, -inf])
case("clip_by_rows", jnp.clip, grid, normal(3, 1) - 1, normal(4) + 1)
case("clip_to_empty_range", lambda x: jnp.clip(x, 1.0, -1.0), [-2.0, 0.5, 2.0])
case("stop_gradient", lambda x: x * lax.stop_gradient(jnp.sin(x)), normal(3))

# Statistics.
square = lambda x: x * x
case("mean_rows", lambda x: jnp.mean(square(x), 1), grid)
case("mean_of_all", jnp.mean, grid)
case("var_rows", lambda x: jnp.var(x, 1), grid)
case("var_columns_1", lambda x: jnp.var(square(x), 0, ddof=1), grid)
case("var_of_all", jnp.var, grid)
case("var_far", lambda x: jnp.var(x, ddof=1), [1e9, 1e9 + 1, 1e9 + 3])
case("norm_rows", lambda x: jnp.linalg.norm(x, axis=1), grid)
case("norm_of_all", jnp.linalg.norm, grid)
case("norm_of_one", jnp.linalg.norm, [-2.0])

# Cumulative reductions. Ties stand in a row, apart, and among three.
ties = [1.0, 1.0, 0.5, 1.0, 2.0, 2.0, 2.0, 1.0, 3.0, 3.0, 3.0]
falling = [-x for x in ties]
for name in ["cumsum", "cumprod", "cummax", "cummin"]:
    function = getattr(lax, name)
    for size in [1, 2, 3, 5, 8]:
        case(f"{name}_of_{size}", lambda x: function(square(x)), normal(size))
    case(f"{name}_rows", lambda x: function(x, 1), grid)
    case(f"{name}_columns", lambda x: function(x, 0), grid)
    case(f"{name}_of_special", function, [1.0, -inf, 2.0, inf, 3.0, nan, 4.0])
case("cumprod_with_zero", lax.cumprod, [2.0, 0.0, 3.0, -1.0])
case("cumprod_with_zeros", lax.cumprod, [2.0, 0.0, 3.0, 0.0, -1.0])
case("cummax_of_ties", lax.cummax, ties)
case("cummin_of_ties", lax.cummin, falling)

# Arrangement.
case("stack_first", lambda x, y: jnp.stack([x, square(y)], 0), normal(2, 3), normal(2, 3))
case("stack_middle", lambda x, y: jnp.stack([x, square(y)], 1), normal(2, 3), normal(2, 3))
case("stack_last", lambda x, y: jnp.stack([x, square(y)], -1), normal(2, 3), normal(2, 3))
case("split", lambda x: jnp.split(square(x), [1, 1], 1), grid)
case("split_evenly", lambda x: jnp.split(square(x), 2, -1), grid)
case("roll", lambda x: jnp.roll(square(x), 1, 1), grid)
case("roll_back", lambda x: jnp.roll(square(x), -2, 0), grid)
case("roll_far", lambda x: jnp.roll(square(x), 11, 0), grid)
case("roll_both", lambda x: jnp.roll(square(x), (-5, 6, 1), (0, 1, 0)), grid)
for diagonal in [-3, -1, 0, 1, 4]:
    case(f"tril_{diagonal}", lambda x: jnp.tril(square(x), diagonal), grid)
    case(f"triu_{diagonal}", lambda x: jnp.triu(square(x), diagonal), grid)
case("tril_of_batch", lambda x: jnp.tril(square(x)), normal(2, 2, 2))
case("tril_hides_infinities", jnp.tril, [[1.0, inf], [2.0, 3.0]])
case("sort_descending", lambda x: jnp.sort(square(x), 1, descending=True), grid)
# The order of equal elements, which tangents show, is that of JAX's argsort; its sort has them in reverse.
in_order = lambda x: jnp.take_along_axis(x, jnp.argsort(x, descending=True), 0)
case("sort_descending_of_ties", in_order, [1.0, 2.0, nan, 2.0, inf, 1.0, -inf])

# Einstein's summation: the name is the formula.
for formula, *dims in [
    ("ij,jk->ik", (2, 3), (3, 2)),
    ("bij,bjk->bik", (2, 2, 3), (2, 3, 2)),
    ("bhqd,bhkd->bhqk", (2, 1, 2, 3), (2, 1, 3, 3)),
    (" i j , j k -> k i ", (2, 3), (3, 2)),
    ("i,j->ij", (2,), (3,)),
    ("i,i->i", (3,), (3,)),
    ("i,i", (3,), (3,)),
    (",i->i", (), (3,)),
    ("ij->ji", (2, 3)),
    ("ij->j", (2, 3)),
    ("ij->", (2, 3)),
    ("ii->i", (3, 3)),
    ("ii", (3, 3)),
    ("iji->j", (2, 3, 2)),
    ("iii->i", (2, 2, 2)),
    ("iijj->ji", (2, 2, 3, 3)),
    ("ii,i->i", (3, 3), (3,)),
    ("ij,jk", (2, 3), (3, 2)),
    ("kj,ji", (2, 3), (3, 2)),
    ("bA", (2, 3)),
    ("ij,kl->", (2, 3), (2, 2)),
    ("ij,jk->k", (2, 3), (3, 2)),
    ("i,ij,j->", (2,), (2, 3), (3,)),
    ("i,i,i->i", (3,), (3,), (3,)),
    ("i,i,i->", (3,), (3,), (3,)),
    ("a,b,c->cab", (2,), (3,), (2,)),
    ("ab,bc,cd,da->", (2, 3), (3, 2), (2, 2), (2, 2)),
    ("...ij,...jk->...ik", (2, 1, 2, 3), (4, 3, 2)),
    ("...,...->...", (2, 1), (3,)),
    ("...,...", (2, 1), (3,)),
    ("i...->...", (2, 3)),
    ("i...j->j...i", (2, 3, 2)),
    ("...ii->...i", (2, 3, 3)),
    ("i...,i...", (2, 3), (2, 1)),
]:
    case(f"einsum {formula}", lambda *x: jnp.einsum(formula, *x), *[normal(*dim) for dim in dims])


# Other dtypes.
def values(name, function, dtype, *arguments):
    """Records the values of a function of arrays of that dtype."""
    arguments = [np.asarray(x).astype(dtype) for x in arguments]
    floats = arguments[0].dtype.kind not in "iu"
    results = function(*[jnp.asarray(x.astype(np.float64) if floats else x) for x in arguments])
    results = [np.asarray(x) for x in (results if isinstance(results, list) else [results])]
    if floats:
        results = [x if x.dtype.kind == "i" else x.astype(dtype) for x in results]
    else:
        assert all(x.dtype in (dtype, np.int64) for x in results), name
    record = {"arguments": arguments, "results": results}
    names = {"bfloat16": "bf16", "float16": "f16", "float32": "f32", "int32": "s32", "int8": "s8", "uint8": "u8"}
    name = f"{name} {names[np.dtype(dtype).name]}"
    assert name not in cases, name
    cases[name] = {key: [of_dtype(array) for array in arrays] for key, arrays in record.items()}


def of_dtype(array):
    """The text of an array; positions are s32."""
    if array.dtype == bfloat16:
        return text(array.astype(np.float32)).replace("f32", "bf16", 1)
    return text(array.astype(np.int32) if array.dtype == np.int64 else array)


rows = np.array([[0.5, -1.25, 3.0, 2.0, -0.125], [1.0, 7.5, -8.0, 1.0, 0.0], [-0.0, 0.0, 1.5, 1.5, 2.25]])
special = np.array([[inf, 1.0, -2.0], [-inf, 1.0, 0.5], [nan, 1.0, -1.0], [-inf, -inf, -inf], [0.0, -0.0, 0.0]])
both = {
    "cumsum_rows": lambda x: lax.cumsum(x, 1),
    "cumprod_rows": lambda x: lax.cumprod(x, 1),
    "cummax_rows": lambda x: lax.cummax(x, 1),
    "cummin_rows": lambda x: lax.cummin(x, 1),
    "relu": jax.nn.relu,
    "clip": lambda x: jnp.clip(x, -1, 1),
    "argsort_descending": lambda x: jnp.argsort(x, 1, descending=True),
    "sort_descending": lambda x: jnp.sort(square(x), 1, descending=True),
    "roll_both": lambda x: jnp.roll(square(x), (-5, 6, 1), (0, 1, 0)),
    "tril_0": lambda x: jnp.tril(square(x)),
    "triu_1": lambda x: jnp.triu(square(x), 1),
    "split": lambda x: jnp.split(square(x), [1, 1], 1),
}
floats = {
    "softmax_rows": lambda x: jax.nn.softmax(x, 1),
    "log_softmax_rows": lambda x: jax.nn.log_softmax(x, 1),
    "logsumexp_rows": lambda x: jax.nn.logsumexp(x, 1),
    "gelu": lambda x: jax.nn.gelu(x, approximate=False),
    "gelu_tanh": jax.nn.gelu,
    "mean_rows": lambda x: jnp.mean(square(x), 1),
    "var_rows": lambda x: jnp.var(x, 1),
    "norm_rows": lambda x: jnp.linalg.norm(x, axis=1),
}
for dtype in [np.float32, np.float16, bfloat16]:
    for name, function in (both | floats).items():
        values(name, function, dtype, rows)
        values(f"{name} of special", function, dtype, special)
    values("einsum ij,kj->ik", lambda x, y: jnp.einsum("ij,kj->ik", x, y), dtype, rows, rows[:2])
integers = np.array([[3, -7, 3, 100, 2], [0, 5, -128, 127, 5]])
for dtype in [np.int32, np.int8, np.uint8]:
    for name, function in both.items():
        if not (dtype == np.uint8 and name == "clip"):
            values(name, function, dtype, integers % 256 if dtype == np.uint8 else integers)
    values("einsum ij->j", lambda x: jnp.einsum("ij->j", x), dtype, integers % 128)
    values("einsum ij,kj->ik", lambda x, y: jnp.einsum("ij,kj->ik", x, y), dtype, integers % 128, integers % 128)
    values("one_hot", lambda x: jax.nn.one_hot(x, 6, dtype=x.dtype), dtype, integers % 128)
write("functions.json", pathlib.Path(__file__).name)
