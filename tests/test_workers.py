"""What can stop a collection that is nobody's damage: memory, processes, shared memory, a guard."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import foreign_cases as cases
import gymnasium
import pytest
from data_cases import SMALL

from worldmodels.data import CollectConfig, DatasetError, collect, load_dataset, workers
from worldmodels.data.collecting import shards
from worldmodels.data.header import SpaceRecord, action_bounds
from worldmodels.data.workers import run_jobs

ROOT = Path(__file__).parents[1]


def nothing(number: int, tick: Any) -> int:
    """A job."""
    return number


def greedy(number: int, tick: Any) -> int:
    """A job that wants more memory than there is."""
    raise MemoryError


@pytest.mark.parametrize("count", [1, 2])
def test_too_little_memory_says_what_to_lower(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, count: int
) -> None:
    monkeypatch.setattr("worldmodels.data.collecting.collect_shard", lambda *_: greedy(0, 0))
    monkeypatch.setattr(
        "worldmodels.data.collecting.run_jobs", lambda *_: (greedy(0, 0) for _ in range(1))
    )
    with pytest.raises(DatasetError, match="not enough memory .* 4 episodes .*--shard-episodes"):
        collect(SMALL, tmp_path, workers=count, progress=False)


def test_a_worker_without_memory_is_no_dead_one() -> None:
    with pytest.raises(MemoryError):
        list(run_jobs(greedy, [(1,), (2,)], 2, bool))


@pytest.mark.timeout(60)
def test_shards_too_large_to_read_are_not_begun(tmp_path: Path) -> None:
    config = CollectConfig(env="three_body", episodes=10**6, steps=10**5, shard_episodes=10**6)
    with pytest.raises(DatasetError, match=r"GiB.*--shard-episodes \d+"):
        collect(config, tmp_path, progress=False)
    assert not list(tmp_path.rglob("*.h5"))


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (errno.ENOSPC, "/dev/shm"),
        (errno.EMFILE, "ulimit -n"),
        (errno.EAGAIN, "no more processes"),
    ],
)
@pytest.mark.parametrize("where", ["get_context", "submit"])
def test_workers_that_cannot_be_started_say_why(
    monkeypatch: pytest.MonkeyPatch, number: int, words: str, where: str
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError(number, os.strerror(number))

    if where == "submit":
        monkeypatch.setattr(workers.ProcessPoolExecutor, "submit", refuse)
    else:
        context = type("Context", (), {"Array": staticmethod(refuse)})
        monkeypatch.setattr(workers.multiprocessing, "get_context", lambda _: context)
    with pytest.raises(DatasetError, match=f"workers cannot be started.*{words}.*--workers 1"):
        list(run_jobs(nothing, [(1,), (2,)], 2, bool))


@pytest.mark.timeout(120)
def test_a_script_without_a_main_guard_is_told_so(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(
        "from worldmodels.data import CollectConfig, collect\n"
        "collect(CollectConfig(env='pendulum', episodes=4, steps=3, shard_episodes=1),\n"
        "        workers=2, progress=False)\n"
    )
    done = subprocess.run(
        [sys.executable, str(script)], cwd=tmp_path, capture_output=True, text=True, check=False,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert done.returncode == 1
    last = done.stderr.strip().splitlines()[-1]
    assert 'if __name__ == "__main__":' in last
    assert "out of memory" not in done.stderr
    assert "in use by process" not in done.stderr


def test_continuous_actions_keep_to_their_space(tmp_path: Path) -> None:
    low, high = action_bounds(SpaceRecord("Box", shape=[2], low=[-1.0, -1.0], high=[1.0, 2.0]))
    assert low.tolist() == [-1.0, -1.0]
    assert high.tolist() == [1.0, 2.0]
    collect(replace(SMALL, action_mode="continuous"), tmp_path, progress=False)


class Opened:
    """What a process cannot send to another."""

    def __reduce__(self) -> Any:
        raise TypeError("cannot pickle 'Opened' object")


def test_an_env_that_cannot_be_sent_to_workers_is_named(tmp_path: Path) -> None:
    config = CollectConfig(
        env=cases.CART, name="b", episodes=4, shard_episodes=2, make_kwargs={"reach": 0.5}
    )
    object.__setattr__(config, "make_kwargs", {"reach": Opened()})
    with pytest.raises(DatasetError, match="cannot be pickled") as caught:
        list(shards(config, tmp_path, [(0, 0, 2), (1, 2, 2)], 2, bool, None))
    said = str(caught.value)
    assert cases.CART in said and "--workers 1" in said and "module:Id-v0" in said
    assert "\n" not in said


def test_a_policy_that_cannot_be_sent_to_workers_is_named(tmp_path: Path) -> None:
    config = replace(SMALL, policy="agent.zip", shard_episodes=2)
    with pytest.raises(
        DatasetError, match=r"the policy 'agent.zip' cannot be pickled.*--workers 1"
    ):
        collect(config, tmp_path, workers=2, progress=False, policy=lambda: None)  # type: ignore[arg-type,return-value]


def test_an_env_that_only_this_process_knows_is_named(tmp_path: Path) -> None:
    name = "Lab/OnlyHere-v0"
    if name not in gymnasium.registry:
        gymnasium.register(name, cases.Cart, max_episode_steps=5)
    config = CollectConfig(env=name, name="b", episodes=4, shard_episodes=2)
    with pytest.raises(DatasetError, match="registered in this process alone") as caught:
        collect(config, tmp_path, workers=2, progress=False)
    said = str(caught.value)
    assert name in said and "--workers 1" in said and "module:Id-v0" in said and "\n" not in said
    assert len(load_dataset(collect(config, tmp_path, workers=1, progress=False))) == 4
