"""Writes tests/fixtures/derivatives.json: values and derivatives as JAX computes them, for tests/transforms/jax.rs.

Run with a Python that has JAX (pip install jax==0.10.2):  python scripts/make-derivative-fixtures.py

What a case is, and what is recorded of it, is told in jax_cases.py.
"""

import pathlib

from jax_cases import case, inf, jax, jnp, lax, nan, np, write

# Operators of one operand.
around = [-2.5, -0.75, 0.0, 0.5, 1.0, 3.25]
positive = [0.5, 1.0, 3.25, 1e-10, 1e10]
for name, function, points in [
    ("abs", lax.abs, around),
    ("cbrt", lax.cbrt, [-8.0, -0.3, 1e-9, 0.5, 27.0, -1e12]),
    ("cbrt_at_0", lax.cbrt, [0.0]),
    ("ceil", lax.ceil, around),
    ("cos", lax.cos, around),
    ("erf", lax.erf, around + [6.0, -30.0]),
    ("exp", lax.exp, around + [-800.0, 800.0]),
    ("expm1", lax.expm1, around + [1e-10, -1e-17, -40.0]),
    ("floor", lax.floor, around),
    ("log", lax.log, positive),
    ("log_outside", lax.log, [0.0, -1.5]),
    ("log1p", lax.log1p, [-0.75, -1e-10, 0.0, 1e-17, 3.25]),
    ("log1p_outside", lax.log1p, [-1.0, -2.0]),
    ("logistic", lax.logistic, around + [-40.0, 40.0, -800.0, 800.0]),
    ("neg", lax.neg, around),
    ("round", lambda x: lax.round(x, lax.RoundingMethod.AWAY_FROM_ZERO), around + [-0.5]),
    ("round_ties_even", lambda x: lax.round(x, lax.RoundingMethod.TO_NEAREST_EVEN), around + [-0.5]),
    ("rsqrt", lax.rsqrt, positive),
    ("rsqrt_at_0", lax.rsqrt, [0.0]),
    ("sign", lax.sign, around),
    ("sin", lax.sin, around),
    ("sqrt", lax.sqrt, positive + [1e-300]),
    ("sqrt_at_0", lax.sqrt, [0.0]),
    ("tan", lax.tan, around),
    ("tanh", lax.tanh, around + [-40.0, 40.0]),
]:
    case(name, function, points)

# Operators of two operands.
lhs = [-2.5, -0.75, 0.5, 1.5, 3.25, 2.0]
rhs = [0.5, -1.25, -3.0, 1.5, 2.0, -0.75]
for name, function in [("add", lax.add), ("sub", lax.sub), ("mul", lax.mul), ("div", lax.div), ("atan2", lax.atan2)]:
    case(name, function, lhs, rhs)
case("div_by_0", lax.div, [1.0, -1.0, 0.0], [0.0, 0.0, 0.0])
case("atan2_on_axes", lax.atan2, [0.0, 0.0, 1.0, -1.0], [1.0, -1.0, 0.0, 0.0])
case("atan2_at_0", lax.atan2, [0.0], [0.0])
case("max", lax.max, [1.0, 2.0, 2.0, 0.0, -1.0, inf], [2.0, 1.0, 2.0, 0.0, -1.5, inf])
case("min", lax.min, [1.0, 2.0, 2.0, 0.0, -1.0, inf], [2.0, 1.0, 2.0, 0.0, -1.5, inf])
case("max_of_signed_zeros", lax.max, [0.0, -0.0], [-0.0, 0.0])
case("max_of_nan", lax.max, [nan, 1.0], [1.0, nan])
case("rem", lax.rem, [5.5, -5.5, 5.5, -5.5, 1.0], [2.0, 2.0, -2.0, -2.0, 3.0])
case("rem_at_multiples", lax.rem, [6.0, -6.0, 0.0], [2.0, 3.0, 3.0])
case("pow", lax.pow, [0.5, 2.0, 3.25, 1.0], [2.5, -1.5, 0.0, 7.0])
case("pow_of_negative", lax.pow, [-2.0, -1.5, -3.0], [3.0, -2.0, 0.0])
case("pow_of_0", lax.pow, [0.0, 0.0, 0.0], [2.0, 1.0, 3.5])
case("pow_0_of_0", lax.pow, [0.0], [0.0])
case("pow_negative_of_0", lax.pow, [0.0], [-1.0])
for power in [0, 1, 2, 3]:
    case(f"power_{power}", lambda x: lax.integer_pow(x, power), [-2.0, 0.5, 0.0])
case("power_minus_2", lambda x: lax.integer_pow(x, -2), [-2.0, 0.5])

# Choices.
# JAX does not differentiate by scalar bounds.
clamp = lambda low, x, high: lax.clamp(jnp.broadcast_to(low, x.shape), x, jnp.broadcast_to(high, x.shape))
case("clamp", clamp, -1.0, [-2.0, -1.0, 0.5, 1.0, 2.0], 1.0)
case("clamp_elementwise", lax.clamp, [-1.0, 0.0, 1.0], [-2.0, 0.5, 0.0], [1.0, 1.0, 1.0])
case("clamp_empty_range", clamp, 1.0, [0.0, 0.5, 2.0], -1.0)
case("select", lambda p, x, y: lax.select(p, x, y), [True, False, True], [1.0, 2.0, nan], [3.0, 4.0, 5.0])
case("where_of_sqrt", lambda x: jnp.where(x > 0, jnp.sqrt(jnp.where(x > 0, x, 1.0)), 0.0), [-1.0, 0.0, 4.0])

# Movement.
random = np.random.default_rng(0)
normal = lambda *shape: np.round(random.normal(size=shape), 3)
grid = normal(3, 4)
case("convert", lambda x: x.astype(jnp.float32).astype(jnp.float64), [0.5, -1.25, 2.0])
case("reshape", lambda x: jnp.sin(x).reshape(2, 6), grid)
case("transpose", lambda x: jnp.sin(x).transpose(2, 0, 1), normal(2, 1, 3))
case("reverse", lambda x: lax.rev(x * x, (0,)), grid)
case("broadcast_in_dim", lambda x: lax.broadcast_in_dim(x * x, (2, 3, 4), (1, 2)), normal(3, 1))
case("concatenate", lambda x, y: lax.concatenate([x * y[:, :1], y, x], 1), normal(2, 1), normal(2, 3))
case("slice", lambda x: lax.slice(x * x, (0, 1), (3, 4), (2, 2)), grid)
case("pad", lambda x, p: lax.pad(x * x, p * p, [(1, -1, 1), (-1, 2, 0)]), grid, 0.75)
case("pad_all_negative", lambda x, p: lax.pad(x * p, p, [(-2, -1, 2)]), normal(4), 0.5)
case("dynamic_slice", lambda x, i, j: lax.dynamic_slice(x * x, (i, j), (2, 2)), grid, 1, 1)
case("dynamic_slice_clamped", lambda x, i: lax.dynamic_slice(x * x, (i,), (3,)), normal(5), 9)
update = lambda x, u, i: lax.dynamic_update_slice(x * x, u * u, (i,))
case("dynamic_update_slice", update, normal(5), normal(2), 1)
case("dynamic_update_slice_clamped", update, normal(5), normal(2), 9)

# Contractions.
case("dot", jnp.dot, normal(3), normal(3))
case("matmul", jnp.matmul, normal(2, 3), normal(3, 4))
dimensions = (([1, 3], [0, 2]), ([2], [3]))
case("dot_general", lambda x, y: lax.dot_general(x, y, dimensions), normal(3, 2, 2, 3), normal(2, 2, 3, 2))
case("outer", lambda x, y: lax.dot_general(x, y, (([], []), ([], []))), normal(2), normal(3))

# Reductions.
case("reduce_sum", lambda x: jnp.sum(x * x, 1), grid)
case("mean", lambda x: jnp.mean(x * x), grid)
case("reduce_prod", lambda x: jnp.prod(x, 1), grid)
zeros = [[2.0, 0.0, -3.0], [0.0, 5.0, 0.0], [1.5, 2.0, -0.5], [0.0, 0.0, 0.0]]
case("reduce_prod_with_zeros", lambda x: jnp.prod(x, 1), zeros)
case("reduce_prod_of_all", jnp.prod, [[2.0, 0.0], [-3.0, 1.5]])
ties = [[1.0, 3.0, 3.0], [2.0, 2.0, 2.0], [5.0, 1.0, 0.0]]
case("reduce_max", lambda x: jnp.max(x * x, 1), ties)
case("reduce_min", lambda x: jnp.min(x * x, 1), ties)
case("reduce_max_of_all", jnp.max, ties)
case("argmax", lambda x: (jnp.argmax(x, 1).astype(jnp.int32), x), ties)
case("logsumexp", lambda x: jax.nn.logsumexp(x, 1), grid)
turn = lambda a, b: (a[0] * b[0] - a[1] * b[1], a[0] * b[1] + a[1] * b[0])
case("reduce", lambda x, y: lax.reduce((x, y), (1.0, 0.0), turn, (1,)), normal(2, 3), normal(2, 3))
window = lambda init, reducer, *shape: lambda x: lax.reduce_window(x * x, init, reducer, *shape)
case("reduce_window_sum", window(0.0, lax.add, (2, 3), (1, 2), [(1, 0), (0, 1)]), grid)
case("reduce_window_max", window(-inf, lax.max, (2, 2), (1, 2), "VALID"), grid)
tied = [2.0, 2.0, 1.0, 1.0, 2.0, -2.0]
case("reduce_window_max_of_ties", window(-inf, lax.max, (3,), (1,), "VALID"), tied)
case("reduce_window_min_of_ties", window(inf, lax.min, (3,), (1,), "VALID"), tied)
tied = [0.0, 2.0, -2.0, 0.0, 2.0, 1.0, 1.0]
case("reduce_window_max_of_inner_ties", window(-inf, lax.max, (4,), (1,), "VALID"), tied)
tied = [[0.0, 2.0, 2.0], [-2.0, 0.0, 2.0], [1.0, 2.0, -1.0]]
case("reduce_window_max_of_tied_squares", window(-inf, lax.max, (2, 2), (1, 1), "VALID"), tied)
case("cumsum", lambda x: lax.cumsum(x * x, 1), grid)
case("cumprod", lambda x: lax.cumprod(x, 0), [2.0, -1.5, 0.5, 3.0])
case("cummax", lambda x: lax.cummax(x, 0), [2.0, -1.5, 3.5, 3.0])
case("cumlogsumexp", lambda x: lax.cumlogsumexp(x, 0), [2.0, -1.5, 3.5, 3.0])

# Order.
keys = [[3.0, 1.0, 2.0, 1.0], [0.5, -0.5, 0.0, 2.5]]
case("sort", lambda x: lax.sort(x * x, dimension=1), keys)
by_first = lambda k, v, i: lax.sort((k, v * k, i), dimension=1, num_keys=1)
case("sort_operands", by_first, keys, normal(2, 4), [[0, 1, 2, 3]] * 2)
case("sort_columns", lambda k, v: lax.sort((k, v), dimension=0, num_keys=1), normal(3, 2), normal(3, 2))
case("top_k", lambda x: lax.top_k(x * x, 2), keys)
for shape in [(4,), (5, 5), (2, 1, 4)]:
    for k in [1, 3]:
        operand = normal(*shape)
        label = f"{'x'.join(map(str, shape))}_k{k}"
        case(f"approx_max_k_{label}", lambda x: lax.approx_max_k(x, k), operand)
        case(f"approx_min_k_{label}", lambda x: lax.approx_min_k(x, k), operand)
case("approx_max_k_columns", lambda x: lax.approx_max_k(jnp.sin(x), 2, reduction_dimension=0), normal(5, 2))

# Gather and scatter.
rows = lax.GatherDimensionNumbers(offset_dims=(1,), collapsed_slice_dims=(0,), start_index_map=(0,))
take_rows = lambda x, i: lax.gather(x * x, i, rows, (1, 2), mode="clip")
case("gather", take_rows, normal(4, 2), [[3], [0], [3]])
case("gather_clamped", take_rows, normal(4, 2), [[-5], [9], [3]])
windows = lax.GatherDimensionNumbers(offset_dims=(0, 2), collapsed_slice_dims=(), start_index_map=(1, 0))
take_windows = lambda x, i: lax.gather(x * x, i, windows, (2, 2), mode="clip")
case("gather_windows", take_windows, grid, [[0, 0], [1, 1], [9, 1]])
along = lambda x, i: jnp.take_along_axis(x * x, i, 1, mode="clip")
case("take_along_axis", along, grid, [[0, 3], [2, 2], [1, 0]])


def scatter(kind, **options):
    dims = lax.ScatterDimensionNumbers((1,), (0,), (0,))
    return lambda x, i, u: kind(x * x, i, u * u, dims, mode=lax.GatherScatterMode.FILL_OR_DROP, **options)


case("scatter_add", scatter(lax.scatter_add), normal(4, 2), [[3], [0], [3]], normal(3, 2))
case("scatter_add_dropped", scatter(lax.scatter_add), normal(4, 2), [[-1], [4], [3]], normal(3, 2))
case("scatter_set", scatter(lax.scatter, unique_indices=True), normal(4, 2), [[3], [0]], normal(2, 2))
case("scatter_set_dropped", scatter(lax.scatter, unique_indices=True), normal(4, 2), [[7], [0]], normal(2, 2))
case("scatter_max", scatter(lax.scatter_max), normal(4, 2), [[3], [0], [3]], normal(3, 2))
tied = [[3], [0], [3], [1]], [[2.0, 1.0], [1.0, 3.0], [2.0, 1.5], [0.5, 4.0]]
case("scatter_max_of_ties", scatter(lax.scatter_max), [[1.0, 3.0], [1.0, 4.0], [1.0, 1.0], [1.0, 1.5]], *tied)
case("scatter_min_of_ties", scatter(lax.scatter_min), [[1.0, 3.0], [1.0, 4.0], [1.0, 1.0], [2.0, 1.5]], *tied)

# Control flow.
def newton(a):
    """The square root, by a loop that stops where it has converged."""
    condition = lambda state: jnp.abs(state[0] * state[0] - state[1]) > 1e-14 * state[1]
    return lax.while_loop(condition, lambda state: ((state[0] + state[1] / state[0]) / 2, state[1]), (a, a))[0]


case("while_loop", newton, 2.5, reverse=False)
squared = lambda x: lax.while_loop(lambda s: s > 1e9, lambda s: s * s, x * x)
case("while_loop_without_iterations", squared, 1.5, reverse=False)
step = lambda i, s: (jnp.sin(s[0]) * s[1] + i, s[1])
case("fori_loop", lambda x, y: lax.fori_loop(0, 5, step, (x, y))[0], normal(3), normal(3))
row = lambda x, i: lax.dynamic_index_in_dim(x, i, 0, False)
recurrent = lambda x, w: lax.fori_loop(0, 3, lambda i, s: jnp.tanh(s @ w + row(x, i)), jnp.zeros(2))
case("fori_loop_rows", recurrent, normal(3, 2), normal(2, 2))
case("fori_loop_without_iterations", lambda x: lax.fori_loop(0, 0, lambda i, s: s * s, x * x), normal(2))
cond = lambda p, x, y: lax.cond(p, lambda x, y: (x * y, x), lambda x, y: (jnp.sin(x), y), x, y)
case("cond_true", cond, True, normal(2), normal(2))
case("cond_false", cond, False, normal(2), normal(2))
branches = [lambda x: x * x, jnp.exp, jnp.ones_like]
for index in range(3):
    case(f"switch_{index}", lambda i, x: lax.switch(i, branches, x), index, normal(2))

# Functions of several operators.
case("softmax", lambda x: jax.nn.softmax(x, 1), grid)
picked = lambda x, i: jnp.take_along_axis(jax.nn.log_softmax(x, 1), i[:, None], 1)
case("cross_entropy", lambda x, i: -jnp.mean(picked(x, i)), grid, [2, 0, 3])
distances = lambda x, y: jnp.sum((x[:, None] - y[None]) ** 2, 2)
case("l2_distances", distances, normal(2, 3), normal(4, 3))
norms = lambda x: jnp.sum(x * x, 1)
by_products = lambda x, y: norms(x)[:, None] - 2 * x @ y.T + norms(y)[None]
case("l2_distances_by_products", by_products, normal(2, 3), normal(4, 3))
nearest = lambda x, y: jnp.sum(jnp.sqrt(lax.approx_min_k(distances(x, y), 2)[0]))
case("nearest_loss", nearest, normal(2, 3), normal(5, 3))
case("newton_steps", lambda a: lax.fori_loop(0, 6, lambda _, x: (x + a / x) / 2, a), [2.5, 0.5, 9.0])
centred = lambda x: x - jnp.mean(x)
case("normalized", lambda x: centred(x) / jnp.sqrt(jnp.mean(centred(x) ** 2) + 1e-5), normal(5))
perceptron = lambda x, w, b, v: jnp.sum(jnp.tanh(x @ w + b) @ v)
case("perceptron", perceptron, normal(2, 3), normal(3, 4), normal(4), normal(4))
case("rosenbrock", lambda x: jnp.sum(100 * (x[1:] - x[:-1] ** 2) ** 2 + (1 - x[:-1]) ** 2), normal(4))

write("derivatives.json", pathlib.Path(__file__).name)
