"""A small network with low-rank adapters, in numpy.

The network is x -> W2 relu(W1 x + b1) + b2. An adapter adds to a frozen weight W the product of two
thin matrices, W + (alpha / r) B A with A of r rows and B of r columns. A starts random and B zero,
so that an untrained adapter changes nothing.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.floating[Any]]  # float32 all of them; numpy's types cannot follow that.
Labels = NDArray[np.int64]

GRADIENT_NORM_MAX = 1.0
PRETRAIN_EPOCHS = 20
PRETRAIN_BATCH_SIZE = 16
PRETRAIN_RATE = 0.1


class TrainingDivergedError(ArithmeticError):
    """The weights are no longer finite."""


@dataclass(frozen=True)
class Base:
    """The weights of the network; `pretrain` returns them read-only."""

    w1: Array
    b1: Array
    w2: Array
    b2: Array


@dataclass(frozen=True)
class Adapters:
    """One adapter for each of the two layers; training changes the arrays in place."""

    a1: Array
    b1: Array
    a2: Array
    b2: Array
    scale: np.float32

    def arrays(self) -> tuple[Array, Array, Array, Array]:
        """Return the trained arrays in the order of their fields."""
        return self.a1, self.b1, self.a2, self.b2


def pretrain(x: Array, y: Labels, *, hidden: int, classes: int, rng: np.random.Generator) -> Base:
    """Return a network trained in full on the rows of `x` with the classes `y`."""
    pixels = x.shape[1]
    w1 = _random(rng, (hidden, pixels), np.sqrt(2 / pixels))
    w2 = _random(rng, (classes, hidden), np.sqrt(1 / hidden))
    base = Base(w1, np.zeros(hidden, np.float32), w2, np.zeros(classes, np.float32))
    for _ in range(PRETRAIN_EPOCHS):
        for rows in _batches(len(x), PRETRAIN_BATCH_SIZE, rng):
            h = np.maximum(x[rows] @ base.w1.T + base.b1, 0)
            error = _error(h @ base.w2.T + base.b2, y[rows])
            h_error = (error @ base.w2) * (h > 0)
            _step(base.w2, error.T @ h, PRETRAIN_RATE)
            _step(base.b2, error.sum(axis=0), PRETRAIN_RATE)
            _step(base.w1, h_error.T @ x[rows], PRETRAIN_RATE)
            _step(base.b1, h_error.sum(axis=0), PRETRAIN_RATE)
    for array in (base.w1, base.b1, base.w2, base.b2):
        array.flags.writeable = False
    return base


def new_adapters(base: Base, r: int, alpha: float, rng: np.random.Generator) -> Adapters:
    """Return untrained adapters of rank `r` for `base`."""
    hidden, pixels = base.w1.shape
    classes = len(base.w2)
    return Adapters(
        a1=_random(rng, (r, pixels), 1 / np.sqrt(pixels)),
        b1=np.zeros((hidden, r), np.float32),
        a2=_random(rng, (r, hidden), 1 / np.sqrt(hidden)),
        b2=np.zeros((classes, r), np.float32),
        scale=np.float32(alpha / r),
    )


def logits(base: Base, adapters: Adapters | None, x: Array) -> Array:
    """Return the scores of each class for the rows of `x`; no adapters means the base alone."""
    if adapters is None:
        known: Array = np.maximum(x @ base.w1.T + base.b1, 0) @ base.w2.T + base.b2
        return known
    h = _hidden(base, adapters, x)
    return _output(base, adapters, h)


def accuracy(base: Base, adapters: Adapters | None, x: Array, y: Labels) -> float:
    """Return which part of the rows of `x` is given its class `y`."""
    return float((logits(base, adapters, x).argmax(axis=1) == y).mean())


def loss(base: Base, adapters: Adapters, x: Array, y: Labels) -> float:
    """Return the mean cross entropy of the rows of `x`."""
    p = _softmax(logits(base, adapters, x))
    return float(-np.log(p[np.arange(len(y)), y]).mean())


def gradients(
    base: Base, adapters: Adapters, x: Array, y: Labels
) -> tuple[Array, Array, Array, Array]:
    """Return the gradients of `loss` in the order of `Adapters.arrays`."""
    s = adapters.scale
    h = _hidden(base, adapters, x)
    error = _error(_output(base, adapters, h), y)
    h_error = (error @ base.w2 + s * (error @ adapters.b2) @ adapters.a2) * (h > 0)
    return (
        s * (h_error @ adapters.b1).T @ x,
        s * h_error.T @ (x @ adapters.a1.T),
        s * (error @ adapters.b2).T @ h,
        s * error.T @ (h @ adapters.a2.T),
    )


def train_epoch(  # noqa: PLR0913 - named arguments all but the three that are what is trained.
    base: Base,
    adapters: Adapters,
    examples: tuple[Array, Labels],
    *,
    learning_rate: float,
    batch_size: int,
    rng: np.random.Generator,
) -> int:
    """Train `adapters` on all rows of `examples` once, by SGD with clipped gradients.

    Returns:
        The number of steps.

    Raises:
        TrainingDivergedError: The learning rate was too high.
    """
    x, y = examples
    steps = 0
    for rows in _batches(len(x), batch_size, rng):
        with np.errstate(over="ignore", invalid="ignore"):  # Told below, as an error.
            found = gradients(base, adapters, x[rows], y[rows])
        norm = float(np.sqrt(sum(float((gradient**2).sum()) for gradient in found)))
        if not np.isfinite(norm):
            raise TrainingDivergedError(f"the training diverged at learning rate {learning_rate}")
        rate = learning_rate * min(1.0, GRADIENT_NORM_MAX / max(norm, 1e-12))
        for array, gradient in zip(adapters.arrays(), found):
            _step(array, gradient, rate)
        steps += 1
    return steps


def digest(adapters: Adapters) -> str:
    """Return the SHA-256 of the adapters' shapes and weights, in hex."""
    state = hashlib.sha256(f"{float(adapters.scale)!r}".encode())
    for array in adapters.arrays():
        state.update(repr(array.shape).encode())
        state.update(np.ascontiguousarray(array, dtype="<f4").tobytes())
    return state.hexdigest()


def _hidden(base: Base, adapters: Adapters, x: Array) -> Array:
    adapted = adapters.scale * (x @ adapters.a1.T) @ adapters.b1.T
    hidden: Array = np.maximum(x @ base.w1.T + base.b1 + adapted, 0)
    return hidden


def _output(base: Base, adapters: Adapters, h: Array) -> Array:
    adapted = adapters.scale * (h @ adapters.a2.T) @ adapters.b2.T
    return h @ base.w2.T + base.b2 + adapted


def _softmax(scores: Array) -> Array:
    exponentials = np.exp(scores - scores.max(axis=1, keepdims=True))
    shares: Array = exponentials / exponentials.sum(axis=1, keepdims=True)
    return shares


def _error(scores: Array, y: Labels) -> Array:
    """Return the gradient of the mean cross entropy by the scores."""
    error = _softmax(scores)
    error[np.arange(len(y)), y] -= 1
    return error / np.float32(len(y))


def _step(array: Array, gradient: Array, rate: float) -> None:
    array -= np.float32(rate) * gradient


def _random(rng: np.random.Generator, shape: tuple[int, int], deviation: float) -> Array:
    return rng.normal(0, deviation, shape).astype(np.float32)


def _batches(rows: int, size: int, rng: np.random.Generator) -> list[NDArray[np.int64]]:
    """Return all row numbers in random order, cut into batches of `size`; the last may be less."""
    order = rng.permutation(rows)
    return [order[start : start + size] for start in range(0, rows, size)]
