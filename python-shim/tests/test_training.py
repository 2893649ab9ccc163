from __future__ import annotations

import sys
import types
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from celery.exceptions import SoftTimeLimitExceeded

from app import experiment, hyperparameters, network
from app.experiment import Data
from app.hyperparameters import Hyperparameters
from app.network import Base
from app.tasks.training import OutOfMemoryError, train_lora

CONFIG: dict[str, Any] = {
    "experiment_name": "digits",
    "user_id": "ann",
    "model": {"name": "base"},
    "data": {},
    "training": {"epochs": 2, "learning_rate": 0.1, "batch_size": 16},
    "lora": {"r": 4, "alpha": 8},
    "system": {},
    "metadata": {"namespace": "tenant-user"},
}


@pytest.fixture(autouse=True)
def no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.delenv("RESULTS_DIR", raising=False)


@pytest.fixture(scope="module")
def data() -> Data:
    return experiment.load_data()


@pytest.fixture(scope="module")
def base(data: Data) -> Base:
    return experiment.pretrained(data)


def test_training_beats_the_frozen_base(base: Base, data: Data) -> None:
    before = network.accuracy(base, None, data.test_x, data.test_y)
    known = data.test_y < experiment.KNOWN_DIGITS
    assert before < 0.55, "the base knows half of the digits"
    assert network.accuracy(base, None, data.test_x[known], data.test_y[known]) > 0.95
    for seed in range(3):
        training = experiment.train(base, data, Hyperparameters(seed=seed))
        assert training.accuracy > 0.9


def test_only_the_adapters_learn(base: Base, data: Data) -> None:
    arrays = (base.w1, base.b1, base.w2, base.b2)
    before = [array.copy() for array in arrays]
    experiment.train(base, data, Hyperparameters(epochs=1))
    for array, copy in zip(arrays, before, strict=True):
        assert not array.flags.writeable
        assert np.array_equal(array, copy)


def test_rank_of_the_adapters(base: Base, data: Data) -> None:
    adapters = experiment.train(base, data, Hyperparameters(epochs=1, r=3, alpha=6)).adapters
    assert float(adapters.scale) == 2
    assert np.linalg.matrix_rank(adapters.b1 @ adapters.a1) == 3
    assert np.linalg.matrix_rank(adapters.b2 @ adapters.a2) == 3


def test_untrained_adapters_change_nothing(base: Base, data: Data) -> None:
    adapters = network.new_adapters(base, 4, 8, np.random.default_rng(0))
    plain = network.logits(base, None, data.test_x)
    assert np.array_equal(network.logits(base, adapters, data.test_x), plain)


def test_held_out_images_are_not_trained_on(data: Data) -> None:
    trained = {row.tobytes() for row in data.train_x}
    assert not any(row.tobytes() in trained for row in data.test_x)
    assert len(data.train_x) + len(data.test_x) == 1797


def test_copies_add_noisy_images(data: Data) -> None:
    assert experiment.augmented(data, Hyperparameters()) is data
    more = experiment.augmented(data, Hyperparameters(copies=3))
    rows = len(data.train_x)
    assert len(more.train_x) == len(more.train_y) == 3 * rows
    assert np.array_equal(more.train_x[:rows], data.train_x)
    assert 0.04 < (more.train_x[rows::2] - data.train_x).std() < 0.06
    assert np.array_equal(more.train_y[rows::2], data.train_y)
    assert np.array_equal(more.test_x, data.test_x)


def test_gradients_are_those_of_the_loss() -> None:
    rng = np.random.default_rng(3)
    x = rng.random((6, 5))
    y = rng.integers(0, 4, 6)
    base = Base(
        rng.normal(size=(7, 5)), rng.normal(size=7), rng.normal(size=(4, 7)), rng.normal(size=4)
    )
    made = network.new_adapters(base, 2, 3.0, rng)
    adapters = network.Adapters(*(rng.normal(size=a.shape) for a in made.arrays()), made.scale)
    found = network.gradients(base, adapters, x, y)
    step = 1e-6
    for array, gradient in zip(adapters.arrays(), found, strict=True):
        for place in np.ndindex(array.shape):
            value = array[place]
            array[place] = value + step
            above = network.loss(base, adapters, x, y)
            array[place] = value - step
            below = network.loss(base, adapters, x, y)
            array[place] = value
            assert gradient[place] == pytest.approx((above - below) / (2 * step), abs=1e-6)


def test_result_shape() -> None:
    result = train_lora(CONFIG)
    runtime = result["train"].pop("runtime")
    accuracy = result["eval"].pop("accuracy")
    model_id = result.pop("model_id")
    assert result == {
        "status": "success",
        "train": {"global_step": 2 * 85},
        "eval": {},
        "mlflow_run_id": None,
        "config": {"experiment_name": "digits", "user_id": "ann"},
        "metadata": {"namespace": "tenant-user"},
    }
    assert runtime >= 0
    assert 0.6 < accuracy <= 1
    assert model_id.startswith("sha256:")
    assert train_lora(CONFIG)["model_id"] == model_id
    other = {**CONFIG, "system": {"seed": 1}}
    assert train_lora(other)["model_id"] != model_id


def test_epochs_and_batch_size_make_the_steps(base: Base, data: Data) -> None:
    rows = len(data.train_x)
    for epochs, size in ((1, rows), (2, 1000), (3, 4096)):
        training = experiment.train(base, data, Hyperparameters(epochs=epochs, batch_size=size))
        assert training.steps == epochs * -(-rows // size)


def test_adapters_are_saved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RESULTS_DIR", str(tmp_path))
    result = train_lora(CONFIG)
    with np.load(tmp_path / "adapter.npz") as saved:
        adapters = network.Adapters(
            saved["a1"], saved["b1"], saved["a2"], saved["b2"], saved["scale"]
        )
    assert result["model_id"] == f"sha256:{network.digest(adapters)}"


def test_declaration_of_the_task() -> None:
    assert train_lora.name == "app.tasks.training.train_lora"
    assert train_lora.autoretry_for == (OutOfMemoryError, SoftTimeLimitExceeded)
    assert train_lora.retry_backoff is True
    assert train_lora.retry_backoff_max == 600
    assert train_lora.retry_jitter is True
    assert train_lora.max_retries == 3
    assert train_lora.soft_time_limit == 3600


def test_memory_error_has_a_name_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    def run(_config: object) -> None:
        raise MemoryError("64 GiB")

    monkeypatch.setattr(experiment, "run", run)
    with pytest.raises(OutOfMemoryError, match="ran out of memory: 64 GiB"):
        train_lora(CONFIG)


def test_missing_sections_have_defaults() -> None:
    assert hyperparameters.parse({}) == Hyperparameters()
    assert hyperparameters.parse({"training": None, "lora": {"r": None}}) == Hyperparameters()


def test_weights_that_are_not_finite_are_an_error(base: Base, data: Data) -> None:
    rng = np.random.default_rng(0)
    adapters = network.new_adapters(base, 4, 8, rng)
    adapters.a1[0, 0] = np.inf
    adapters.b1[0, 0] = np.nan
    examples = (data.train_x, data.train_y)
    with pytest.raises(network.TrainingDivergedError, match=r"diverged at learning rate 0\.5"):
        network.train_epoch(base, adapters, examples, learning_rate=0.5, batch_size=8, rng=rng)


@pytest.mark.parametrize(
    ("section", "key", "value"),
    [
        ("data", "copies", 0),
        ("data", "copies", 100_001),
        ("training", "epochs", 0),
        ("training", "epochs", 1001),
        ("training", "epochs", "3"),
        ("training", "epochs", 3.0),
        ("training", "epochs", True),
        ("training", "batch_size", 0),
        ("training", "learning_rate", 0),
        ("training", "learning_rate", -1.0),
        ("training", "learning_rate", float("nan")),
        ("training", "learning_rate", float("inf")),
        ("training", "learning_rate", "fast"),
        ("lora", "r", 0),
        ("lora", "r", 65),
        ("lora", "alpha", 0),
        ("lora", "alpha", 2000),
        ("system", "seed", -1),
    ],
)
def test_bad_values_are_named(section: str, key: str, value: object) -> None:
    with pytest.raises(ValueError, match=rf"config\.{section}\.{key} must be a"):
        train_lora({**CONFIG, section: {key: value}})


@pytest.mark.parametrize("section", ["data", "training", "lora", "system", "metadata"])
def test_sections_are_objects(section: str) -> None:
    with pytest.raises(ValueError, match=rf"config\.{section} must be an object"):
        train_lora({**CONFIG, section: [1]})


def fake_mlflow(error: Exception | None = None) -> tuple[types.ModuleType, dict[str, Any]]:
    """Return a stand-in for mlflow, and what is recorded with it."""
    record: dict[str, Any] = {}

    @contextmanager
    def start_run() -> Any:
        if error is not None:
            raise error
        yield types.SimpleNamespace(info=types.SimpleNamespace(run_id="run-7"))

    module = types.ModuleType("mlflow")
    module.__dict__.update(
        set_experiment=lambda name: record.update(experiment=name),
        start_run=start_run,
        log_params=record.update,
        log_metrics=record.update,
    )
    return module, record


def test_mlflow_run_is_recorded(monkeypatch: pytest.MonkeyPatch) -> None:
    module, record = fake_mlflow()
    monkeypatch.setitem(sys.modules, "mlflow", module)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://mlflow:5000")
    result = train_lora(CONFIG)
    assert result["mlflow_run_id"] == "run-7"
    assert record["experiment"] == "digits"
    assert (record["epochs"], record["r"]) == (2, 4)
    assert record["accuracy"] == result["eval"]["accuracy"]


@pytest.mark.parametrize("is_installed", [True, False])
def test_without_mlflow_there_is_no_run(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, is_installed: bool
) -> None:
    address = "http://user:secret@mlflow:5000"
    module = fake_mlflow(ConnectionError(address))[0] if is_installed else None
    monkeypatch.setitem(sys.modules, "mlflow", module)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", address)
    assert train_lora(CONFIG)["mlflow_run_id"] is None
    assert "was not recorded in MLflow" in caplog.text
    assert "secret" not in caplog.text
