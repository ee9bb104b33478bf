"""Torch's threads: forked children never wait for threads they do not have, small work takes one."""

from __future__ import annotations

import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
import torch
from model_doubles import make_pixel_spec, make_spec, small_model, visual_model

from physgym import threads
from worldmodels.envs.single import make_env
from worldmodels.imagination import imagine, small_batch

SAVED = """
import sys
import numpy as np, torch
torch.set_num_threads(2)
torch.randn(100_000).sin_()  # threads that a fork does not copy
"""
ASYNC = (
    SAVED
    + """
import gymnasium, worldmodels
envs = gymnasium.make_vec(
    "WorldModels/Learned-v0", num_envs=2, vectorization_mode="async", checkpoint=sys.argv[1])
envs.reset(seed=0)
for _ in range(3):
    envs.step(np.zeros(2, int))
envs.close()
print("stepped")
"""
)
LATE = (
    SAVED
    + """
import multiprocessing, worldmodels
def child(folder):
    env = worldmodels.make_env(folder, num_envs=600)   # torch comes to worldmodels only here
    env.reset(seed=0)
    env.step(np.zeros(600, int))
    assert torch.get_num_threads() == 1
    print("stepped", flush=True)
worker = multiprocessing.get_context("fork").Process(target=child, args=(sys.argv[1],))
worker.start(); worker.join()
"""
)
TRUE = """
import multiprocessing
import numpy as np, torch
torch.set_num_threads(2)
import physgym
envs = physgym.PhysicsVectorEnv("pendulum", 40_000, backend="torch")
envs.reset(seed=0)
envs.step(np.zeros(40_000, int))
def child():
    envs.step(np.zeros(40_000, int))
    print("stepped", flush=True)
worker = multiprocessing.get_context("fork").Process(target=child)
worker.start(); worker.join()
"""

forks = pytest.mark.skipif(not hasattr(threads.os, "fork"), reason="no fork here")


def stepped(code: str, *arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """A checkpoint of a model of states and one of a model of pictures."""
    from worldmodels.configs.training import to_dict
    from worldmodels.storage.checkpoint import save_checkpoint

    folders = {}
    models = {
        "states": small_model("newtonian", make_spec("pendulum")),
        "pixels": visual_model("pendulum", spec=make_pixel_spec("pendulum")),
    }
    for kind, model in models.items():
        folder = tmp_path_factory.mktemp("saved") / kind
        name = "visual" if kind == "pixels" else "newtonian"
        config = {
            "spec": model.spec.to_dict(),
            "model_name": name,
            "model": to_dict(model.config),
        }
        save_checkpoint(folder, config, model.state_dict(), meta={"step": 1})
        folders[kind] = str(folder)
    return folders


@forks
@pytest.mark.parametrize("kind", ["states", "pixels"])
def test_forked_workers_step_a_learned_env(kind: str, saved: dict[str, str]) -> None:
    assert stepped(ASYNC, saved[kind]) == "stepped"


@forks
def test_a_forked_child_may_be_the_first_to_load_a_model(saved: dict[str, str]) -> None:
    assert stepped(LATE, saved["states"]) == "stepped"


@forks
def test_a_forked_child_steps_a_true_env_on_torch() -> None:
    assert stepped(TRUE) == "stepped"


@pytest.fixture
def three_threads() -> object:
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    yield
    torch.set_num_threads(before)


@pytest.mark.usefixtures("three_threads")
def test_small_work_takes_one_thread_and_gives_the_others_back() -> None:
    with threads.small_work(10.0):
        assert torch.get_num_threads() == 1
        with threads.small_work(10.0):
            assert torch.get_num_threads() == 1
        assert torch.get_num_threads() == 1
    assert torch.get_num_threads() == 3
    with threads.small_work(1e12):
        assert torch.get_num_threads() == 3
    with pytest.raises(KeyError), threads.small_work(1.0):
        raise KeyError
    assert torch.get_num_threads() == 3


@pytest.mark.usefixtures("three_threads")
def test_callers_in_threads_leave_the_number_as_it_was() -> None:
    def work() -> None:
        for _ in range(200):
            with threads.small_work(1.0):
                torch.ones(3).sum()

    workers = [threading.Thread(target=work) for _ in range(4)]
    for worker in workers:
        worker.start()
    with threads.small_work(1.0):
        for worker in workers:
            worker.join()
    assert torch.get_num_threads() == 3
    found: list[int] = []
    late = threading.Thread(target=lambda: found.append(torch.get_num_threads()))
    late.start()
    late.join()
    assert found == [3]


@pytest.mark.usefixtures("three_threads")
def test_learned_envs_and_rollouts_of_few_rows_take_one_thread() -> None:
    model = small_model("newtonian", make_spec("pendulum"))
    seen = []
    decode = model.decode
    model.decode = lambda latent: seen.append(torch.get_num_threads()) or decode(latent)
    env = make_env(model, num_envs=64)
    env.reset(seed=0)
    seen.clear()
    env.step(np.zeros(64, int))
    params = torch.ones(64, len(model.spec.param_names))
    with torch.no_grad():
        latent = model.encode(torch.zeros(64, 1, 2), params)
        imagine(model, latent, torch.ones(64, 2, dtype=torch.int64))
    assert seen == [1, 1, 1]
    assert torch.get_num_threads() == 3


@pytest.mark.usefixtures("three_threads")
def test_many_rows_and_pictures_take_all_threads(tmp_path: Path) -> None:
    model = small_model("newtonian", make_spec("pendulum"))
    weights = sum(tensor.numel() for tensor in model.parameters())
    with small_batch(model, threads.SMALL_WORK // weights + 1):
        assert torch.get_num_threads() == 3
    with small_batch(visual_model("pendulum"), 1):
        assert torch.get_num_threads() == 3
