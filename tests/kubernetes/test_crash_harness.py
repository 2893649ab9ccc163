"""Workers, Redis and the API server die at every step and at any instant; nothing is done twice.

By hand, with more of it:

    make crashes INSTANTS=500 [SEED=…]
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path

import pytest
from cluster import Cluster
from crash_harness import LEASE_S, CrashHarness
from fake_kubelet import FakeKubelet
from job_watch import JobWatch
from publication_watch import PublicationWatch
from redis_server import RedisServer


@pytest.fixture
def redis_server(tmp_path: Path) -> Iterator[RedisServer]:
    """Run a redis-server that loses nothing."""
    server = RedisServer(tmp_path / "redis", appendonly=True)
    yield server
    server.stop()


@pytest.fixture
def chance(request: pytest.FixtureRequest) -> random.Random:
    """Return what chance decides, and print how to have it decide so again."""
    seed = request.config.getoption("--seed") or random.randrange(1 << 32)
    print(f"seed {seed}")
    return random.Random(seed)


@pytest.fixture
def harness(
    own_cluster: Cluster,
    own_kubelet: FakeKubelet,
    redis_server: RedisServer,
    job_watch: JobWatch,
    publications: PublicationWatch,
    tmp_path: Path,
) -> Iterator[CrashHarness]:
    """Return a harness; at the end it has printed its counts, and nothing is wrong."""
    made = CrashHarness(own_cluster, redis_server, job_watch, publications, tmp_path)
    yield made
    made.close()


def assert_exactly_once(harness: CrashHarness) -> None:
    """Bring everything to its end, print the counts, and compare."""
    harness.finish()
    print(harness.report())
    problems = harness.problems()
    assert not problems, "\n".join(problems)


def test_killed_at_every_step(harness: CrashHarness, request: pytest.FixtureRequest) -> None:
    steps = harness.learn_steps(only_changes=not request.config.getoption("--all-steps"))
    harness.kill_at_steps(steps)
    print(*[f"{phase:>6} {step}" for step, phase in steps], sep="\n")
    assert_exactly_once(harness)


def test_killed_at_any_instant(
    harness: CrashHarness, chance: random.Random, request: pytest.FixtureRequest
) -> None:
    harness.kill_at_instants(request.config.getoption("--instants"), chance)
    assert_exactly_once(harness)


def test_ten_workers_killed_all_the_time(
    harness: CrashHarness, chance: random.Random, request: pytest.FixtureRequest
) -> None:
    took_s = harness.kill_of_many(10, request.config.getoption("--instants"), chance)
    print(f"the end of all {took_s:.1f} s after the last kill")
    assert_exactly_once(harness)


def test_stopped_for_longer_than_its_lease(harness: CrashHarness) -> None:
    harness.stop_at("look at stored states", "before", LEASE_S + 2)
    assert_exactly_once(harness)


def test_redis_and_the_api_server_go_away(harness: CrashHarness, chance: random.Random) -> None:
    harness.trouble_redis(chance)
    harness.trouble_api(chance)
    assert_exactly_once(harness)
