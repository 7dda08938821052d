"""Writes tests/fixtures/optimizers.json: training in f64, for tests/transforms/optim.rs.

Run with a Python that has NumPy:  python scripts/make-optimizer-fixtures.py

A linear regression of mean squared error, by each optimiser, and what its weights, bias and state are after some
steps. The rules are those of the papers, as Optax has them:

    sgd       w -= rate g
    momentum  v = m v + g;  w -= rate v                                 (Polyak, 1964)
    adam      Kingma and Ba, 2014, algorithm 1: eps is added to the root of the corrected mean of squares
    adagrad   s += g²;  w -= rate g / √(s + eps)                        (Duchi, Hazan and Singer, 2011, diagonal;
              eps is added under the root, and s starts at an initial value)
"""

import json
import pathlib

import numpy as np

random = np.random.default_rng(7)
inputs = np.round(random.uniform(-1, 1, (8, 3)), 3)
targets = np.round(inputs @ np.array([1.5, -2.0, 0.5]) + 0.25 + random.uniform(-0.1, 0.1, 8), 3)


def gradient(weights, bias):
    error = inputs @ weights + bias - targets
    return 2 * inputs.T @ error / len(targets), 2 * np.mean(error)


def sgd(x, g, state, t):
    return x - 0.1 * g, state


def momentum(x, g, state, t):
    velocity = 0.9 * state[0] + g
    return x - 0.05 * velocity, [velocity]


def adam(x, g, state, t):
    mean = 0.9 * state[0] + 0.1 * g
    square = 0.999 * state[1] + (1 - 0.999) * g**2
    change = mean / (1 - 0.9**t) / (np.sqrt(square / (1 - 0.999**t)) + 1e-8)
    return x - 0.1 * change, [mean, square]


def adagrad(x, g, state, t):
    total = state[0] + g**2
    return x - 0.5 * g / np.sqrt(total + 1e-7), [total]


initial = {"sgd": [], "momentum": [0.0], "adam": [0.0, 0.0], "adagrad": [0.1]}
trained = {}
for rule in (sgd, momentum, adam, adagrad):
    weights, bias = np.zeros(3), 0.0
    of_weights = [np.full(3, value) for value in initial[rule.__name__]]
    of_bias = list(initial[rule.__name__])
    steps = {}
    for t in range(1, 61):
        by_weights, by_bias = gradient(weights, bias)
        weights, of_weights = rule(weights, by_weights, of_weights, t)
        bias, of_bias = rule(bias, by_bias, of_bias, t)
        if t in (1, 2, 10, 60):
            # The leaves of a map of bias and weights are in that order.
            leaves = lambda bias, weights: [float(bias), *map(float, weights)]
            states = [leaves(*pair) for pair in zip(of_bias, of_weights)]
            steps[t] = {"params": leaves(bias, weights), "state": states}
    trained[rule.__name__] = steps

path = pathlib.Path(__file__).parent.parent / "tests/fixtures/optimizers.json"
file = {"inputs": inputs.ravel().tolist(), "targets": targets.tolist(), "trained": trained}
path.write_text(json.dumps(file, indent=1) + "\n")
