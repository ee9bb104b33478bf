"""What CONTRIBUTING.md shows works, from a folder of its own: collected, trained, evaluated and filmed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from contributing import blocks

ROOT = Path(__file__).parent.parent
DRIVER = """
import sys
from worldmodels.plugins import load_plugin

for plugin in sys.argv[1].split(","):
    load_plugin(plugin)
sys.argv = sys.argv[2:]
sys.path.insert(0, sys.argv[0].rpartition("/")[0])
import runpy
runpy.run_path(sys.argv[0], run_name="__main__")
"""
"""Loads plugins, then runs one of the scripts as a command line would."""


def run(folder: Path, *words: str) -> str:
    env = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, *words], cwd=folder, env=env, capture_output=True, text=True, timeout=400
    )
    assert done.returncode == 0, f"{words}: {done.stdout[-2000:]}{done.stderr[-3000:]}"
    return done.stdout


def script(folder: Path, name: str, *words: str) -> str:
    path = str(ROOT / "scripts" / f"{name}.py")
    return run(folder, "driver.py", "cart.py,spring.py", path, *words)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Where a user works, with nothing of this repository in it."""
    path = tmp_path_factory.mktemp("user")
    for name, text in {**blocks(), "driver.py": DRIVER}.items():
        (path / name).write_text(text)
    return path


def test_each_file_is_short():
    files = blocks()
    assert set(files) == {"cart.py", "spring.py", "reward.py"}
    assert all(text.count("\n") <= 60 for text in files.values())


@pytest.mark.slow
def test_a_users_system_structure_and_reward_by_command_line(folder):
    script(
        folder, "collect", "--env", "cart", "--episodes", "20", "--steps", "20", "--workers", "2"
    )
    train = ["--env", "cart", "--model", "spring", "--dataset", "cart/default", "--out", "run"]
    small = ["--epochs", "2", "--optim.steps-per-epoch", "5", "--optim.batch-size", "16"]
    script(folder, "train", *train, *small, "--model.stiffness", "2.0")
    record = json.loads((folder / "run" / "run.json").read_text())
    assert [Path(name).name for name in record["plugins"]] == ["cart.py", "spring.py"]
    assert json.loads((folder / "run" / "config.json").read_text())["model"]["stiffness"] == 2.0
    assert "spring" in script(folder, "evaluate", "run")
    script(folder, "visualize", "--run", "run", "--steps", "10", "--out", "film.gif")
    assert (folder / "film.gif").stat().st_size > 1000
    code = (
        "import worldmodels; [worldmodels.load_plugin(f'{n}.py') for n in ('cart', 'spring')]; "
        "import reward; print(reward.compare('run'))"
    )
    true, learned = json.loads(run(folder, "-c", code))
    assert -40.0 < learned < 20.0 and -40.0 < true < 20.0


@pytest.mark.slow
def test_a_users_structure_over_pictures(folder):
    code = """
from dataclasses import replace
import worldmodels

for name in ("cart.py", "spring.py"):
    worldmodels.load_plugin(name)
config = worldmodels.CollectConfig("cart", name="seen", episodes=10, steps=20, pixels=True, image_size=16)
data = worldmodels.collect(config, progress=False)
for medium in ("spatial", "flat"):
    config = worldmodels.default_config("cart", "visual", f"{medium}_spring", "tiny")
    optim = replace(config.optim, steps_per_epoch=2)
    model = replace(config.model, spatial_size=4)
    config = replace(config, dataset=str(data), epochs=1, out=medium, device="cpu", model=model, optim=optim)
    worldmodels.train(config, progress=False)
    env = worldmodels.make_env(medium, render_mode="rgb_array")
    env.reset(seed=0)
    env.step(1)
    print(env.render().shape)
"""
    assert run(folder, "-c", code).count("(480, 480, 3)") == 2
