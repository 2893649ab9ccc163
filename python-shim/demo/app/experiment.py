"""One experiment: adapt a network that knows the digits 0 to 4 to all ten.

The data are the 1,797 handwritten digits that come with scikit-learn. A quarter of them is held
out. The base network is trained on the digits 0 to 4 of the rest and then frozen; it stands for the
model that somebody else trained. The adapters are trained on all ten digits, and their accuracy is
measured on the quarter that neither has seen, where the base alone cannot know half of it.

Environment, both optional:
    MLFLOW_TRACKING_URI  the run is recorded there, when mlflow is installed
    RESULTS_DIR          the adapters are saved there as `adapter.npz`
"""

from __future__ import annotations

import importlib
import logging
import os
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

from app import hyperparameters, network
from app.hyperparameters import Hyperparameters
from app.network import Adapters, Array, Base, Labels

logger = logging.getLogger(__name__)

KNOWN_DIGITS = 5
CLASSES = 10
HIDDEN = 512
PIXEL_MAX = 16.0
HELD_OUT = 0.25
DATA_SEED = 0
NOISE = 0.05  # of a copy's pixels, its standard deviation
MLFLOW_TIMEOUT_S = 5


@dataclass(frozen=True)
class Data:
    """The images, one a row with values from 0 to 1, and their digits."""

    train_x: Array
    train_y: Labels
    test_x: Array
    test_y: Labels


@dataclass(frozen=True)
class Training:
    """What came of training adapters; the run time is in seconds."""

    adapters: Adapters
    steps: int
    runtime: float
    accuracy: float


def run(config: Mapping[str, Any]) -> dict[str, Any]:
    """Run the experiment that `config` describes and return the task's result.

    Raises:
        ValueError: A field of the config is wrong.
        TrainingDivergedError: The learning rate was too high.
    """
    parameters = hyperparameters.parse(config)
    metadata = hyperparameters.section(config, "metadata")
    data = load_data()
    training = train(pretrained(data), augmented(data, parameters), parameters)
    _save(training.adapters)
    experiment_name = config.get("experiment_name")
    return {
        "status": "success",
        "train": {"global_step": training.steps, "runtime": round(training.runtime, 3)},
        "eval": {"accuracy": training.accuracy},
        "model_id": f"sha256:{network.digest(training.adapters)}",
        "mlflow_run_id": _recorded(experiment_name, parameters, training),
        "config": {"experiment_name": experiment_name, "user_id": config.get("user_id")},
        "metadata": {"namespace": metadata.get("namespace")},
    }


def load_data() -> Data:
    """Return the digits, split the same way every time."""
    digits = load_digits()
    images = (digits.data / PIXEL_MAX).astype(np.float32)
    train_x, test_x, train_y, test_y = train_test_split(
        images,
        digits.target,
        test_size=HELD_OUT,
        stratify=digits.target,
        random_state=DATA_SEED,
    )
    return Data(train_x, train_y, test_x, test_y)


def augmented(data: Data, parameters: Hyperparameters) -> Data:
    """Return the data with each training image `parameters.copies` times, the first as it is."""
    copies = parameters.copies - 1
    if copies == 0:
        return data
    rng = np.random.default_rng(parameters.seed)
    repeated = np.repeat(data.train_x, copies, axis=0)
    repeated += rng.normal(0, NOISE, repeated.shape).astype(np.float32)
    return replace(
        data,
        train_x=np.concatenate((data.train_x, repeated)),
        train_y=np.concatenate((data.train_y, np.repeat(data.train_y, copies))),
    )


def pretrained(data: Data) -> Base:
    """Return the frozen network that knows the digits below `KNOWN_DIGITS`."""
    known = data.train_y < KNOWN_DIGITS
    rng = np.random.default_rng(DATA_SEED)
    return network.pretrain(
        data.train_x[known], data.train_y[known], hidden=HIDDEN, classes=CLASSES, rng=rng
    )


def train(base: Base, data: Data, parameters: Hyperparameters) -> Training:
    """Train adapters for `base` and measure them on the held-out images."""
    started = time.monotonic()
    rng = np.random.default_rng(parameters.seed)
    adapters = network.new_adapters(base, parameters.r, parameters.alpha, rng)
    steps = 0
    for epoch in range(1, parameters.epochs + 1):
        steps += network.train_epoch(
            base,
            adapters,
            (data.train_x, data.train_y),
            learning_rate=parameters.learning_rate,
            batch_size=parameters.batch_size,
            rng=rng,
        )
        logger.info("epoch %d of %d, %d steps", epoch, parameters.epochs, steps)
    accuracy = network.accuracy(base, adapters, data.test_x, data.test_y)
    return Training(adapters, steps, time.monotonic() - started, accuracy)


def _save(adapters: Adapters) -> None:
    """Save the adapters when there is a folder for results."""
    folder = os.environ.get("RESULTS_DIR")
    if folder:
        np.savez(
            Path(folder) / "adapter.npz",
            a1=adapters.a1,
            b1=adapters.b1,
            a2=adapters.a2,
            b2=adapters.b2,
            scale=adapters.scale,
        )


def _recorded(
    experiment_name: object, parameters: Hyperparameters, training: Training
) -> str | None:
    """Record the run in MLflow and return its id; None when nothing was recorded."""
    if not os.environ.get("MLFLOW_TRACKING_URI"):
        return None
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", str(MLFLOW_TIMEOUT_S))
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
    try:
        mlflow = importlib.import_module("mlflow")
        mlflow.set_experiment(str(experiment_name or "default"))
        with mlflow.start_run() as recorded:
            mlflow.log_params(asdict(parameters))
            mlflow.log_metrics({"accuracy": training.accuracy, "runtime": training.runtime})
        return str(recorded.info.run_id)
    except Exception as error:
        # A training that succeeded is not lost for its record. The text could hold the address,
        # which may have a password in it.
        logger.warning("the run was not recorded in MLflow: %s", type(error).__name__)
        return None
