"""What a config says about a training, checked."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Hyperparameters:
    """The settings that the training reads; the names are those of the config."""

    copies: int = 1
    epochs: int = 3
    learning_rate: float = 0.1
    batch_size: int = 8
    r: int = 8
    alpha: float = 16.0
    seed: int = 0


def parse(config: Mapping[str, Any]) -> Hyperparameters:
    """Return the settings in `config`, with the defaults for those that are missing or null.

    Raises:
        ValueError: One is of the wrong type or out of range; the text names it and the range.
    """
    default = Hyperparameters()
    data = section(config, "data")
    training = section(config, "training")
    lora = section(config, "lora")
    system = section(config, "system")
    return Hyperparameters(
        copies=_whole(data, "data.copies", default.copies, 1, 100_000),
        epochs=_whole(training, "training.epochs", default.epochs, 1, 1000),
        learning_rate=_positive(training, "training.learning_rate", default.learning_rate, 10),
        batch_size=_whole(training, "training.batch_size", default.batch_size, 1, 4096),
        r=_whole(lora, "lora.r", default.r, 1, 64),
        alpha=_positive(lora, "lora.alpha", default.alpha, 1024),
        seed=_whole(system, "system.seed", default.seed, 0, 2**32 - 1),
    )


def section(config: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    """Return the object `name` of `config`, {} when it is missing or null.

    Raises:
        ValueError: It is something else.
    """
    value = config.get(name)
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        raise ValueError(f"config.{name} must be an object")
    return value


def _whole(values: Mapping[str, Any], field: str, default: int, low: int, high: int) -> int:
    value = values.get(field.rpartition(".")[2])
    if value is None:
        return default
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
        raise ValueError(f"config.{field} must be a whole number from {low} to {high}")
    return value


def _positive(values: Mapping[str, Any], field: str, default: float, high: float) -> float:
    value = values.get(field.rpartition(".")[2])
    if value is None:
        return default
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value <= high:
        raise ValueError(f"config.{field} must be a number over 0 and up to {high}")
    return float(value)
