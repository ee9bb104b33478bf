"""Watch a system, or a world model beside it: in a window, or as a film, or in pictures.

    physgym visualize --env pendulum --policy controller --out pendulum.gif
    physgym visualize --run outputs/.../port_hamiltonian --out beside.mp4
    physgym visualize --run outputs/.../port_hamiltonian --pictures pictures

With --run the panels are true | learned | difference: the model starts from the true state (a model
of pixels: from the first frames), gets the same actions and never sees the truth again. Without
--out a window opens. --pictures writes PNGs instead. Of a model of states: its phase portrait, the
energy it learned, its damping and input gain, and an episode over time, all beside the true ones. Of
a model of pixels: its rollouts over time, its latent, its energy, samples of its prior and a
traversal of its latent.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

import physgym
from worldmodels.commands import terminal as cli

MOST_STEPS = 100_000
"""Pictures of a film are all in memory."""


@dataclass(frozen=True)
class VisualizeConfig:
    """What to show."""

    env: str | None = None
    """System to show (a name or an env id); None: that of the run, or the pendulum."""
    run: Path | None = None
    """Run or checkpoint folder of a world model to show beside the truth."""
    policy: Literal["controller", "random", "zero"] | None = None
    """Who acts: the system's hand-written controller, chance, or nobody; None: the controller, or chance
    where the env is not of PhysGym and has none."""
    out: Path | None = None
    """File to write, .mp4 or .gif; None: a window on the screen."""
    pictures: Path | None = None
    """Folder for the pictures of a run's model; then no window opens."""
    dataset: str | None = None
    """Dataset whose episodes the pictures show; None: the one that the run learned from."""
    steps: int | None = None
    """Steps to show; None: one episode."""
    seed: int = 0
    """Seed of the start and of the random policy."""
    size: int | None = None
    """Width of a panel in pixels; None: 480, or 360 beside a model. That of a model of pixels is
    the multiple of its picture's width that comes closest."""
    speed: float = 1.0
    """1: real time; 2: twice as fast."""

    def check(self) -> None:
        """Raises UsageError for a value that cannot be."""
        if self.steps is not None and not 1 <= self.steps <= MOST_STEPS:
            raise cli.UsageError(f"--steps {self.steps} is not valid: expected 1 to {MOST_STEPS}")
        if not 0 <= self.seed < 2**63:
            raise cli.UsageError(f"--seed {self.seed} is not valid: expected 0 to {2**63 - 1}")
        if self.size is not None and not 16 <= self.size <= 4096:
            raise cli.UsageError(f"--size {self.size} is not valid: expected 16 to 4096 pixels")
        if not 0 < self.speed <= 1000:
            raise cli.UsageError(f"--speed {self.speed} is not valid: expected a number above 0")
        if self.out is not None and self.out.suffix.lower() not in (".mp4", ".gif"):
            raise cli.UsageError(f"--out {self.out} is not valid: expected a name in .mp4 or .gif")
        if self.out is not None:
            cli.check_writable(self.out)
        if self.pictures is not None and self.run is None:
            raise cli.UsageError("--pictures shows a model: name its --run")
        if self.pictures is not None:
            cli.check_writable(self.pictures, folder=True, option="--pictures")
        shown = {"policy": None, "steps": None, "size": None, "speed": 1.0}
        for name, default in shown.items():
            if self.pictures and self.out is None and getattr(self, name) != default:
                raise cli.UsageError(
                    f"--{name} {getattr(self, name)} is of a film, which --pictures alone does not "
                    "make: name its --out, too"
                )
        if self.dataset is not None and self.pictures is None:
            raise cli.UsageError("--dataset is what --pictures shows: name a folder for --pictures")


def main() -> None:
    """Show what the command line asks for."""
    config = cli.parse(VisualizeConfig, description=__doc__)
    config.check()
    if config.pictures is not None:
        print("\n".join(str(path) for path in draw(config, config.pictures)))
        if config.out is None:
            return
    if config.out is None:
        show(config)
        return
    from worldmodels.films.video import write_video

    frames, fps = (beside if config.run else alone)(config)
    with cli.progress("writing", len(frames)) as advance:
        path = write_video(frames, config.out, fps * config.speed, advance)
    print(f"{path}: {len(frames)} frames, {len(frames) / fps / config.speed:.1f} s")


def show(config: VisualizeConfig) -> None:
    """Show it in a window until it ends or the user closes it."""
    from physgym.window import Window

    window = Window(f"PhysGym {config.run or config.env or 'pendulum'}")
    try:
        window.show(np.zeros((8, 8, 3), np.uint8))  # a missing display is said before any work
        frames, fps = (beside if config.run else alone)(config)
        for frame in frames:
            if not window.show(frame, fps * config.speed):
                break
    finally:
        window.close()


def alone(config: VisualizeConfig) -> tuple[np.ndarray, float]:
    """Film (T+1, size, size, 3) of the true env, and its frames a second."""
    from worldmodels.films.recording import captions, record
    from worldmodels.films.video import film

    env = config.env or "pendulum"
    shown = record(env, {}, policy_of(config, env, {}), config.steps, config.seed)
    lines = captions(shown, shown.states)
    with cli.progress("drawing", len(lines)) as advance:
        size = config.size or 480
        drawn = film(shown.system, shown.states, shown.controls, shown.params, size, lines, advance)
    return drawn, 1 / shown.dt


def beside(config: VisualizeConfig) -> tuple[np.ndarray, float]:
    """Film of the truth, a model and their difference, and its frames a second."""
    from worldmodels.films.recording import record
    from worldmodels.films.viewer import viewer_of

    model = load_model(config)
    spec = model.spec
    policy = policy_of(config, spec.env_name, spec.env_kwargs)
    recording = record(spec.env_name, spec.env_kwargs, policy, config.steps, config.seed)
    with cli.progress("drawing", len(recording.states)) as advance:
        film = viewer_of(model.spec.medium).film(model, recording, config.size or 360, advance)
    return film, 1 / recording.dt


def policy_of(config: VisualizeConfig, env: str, kwargs: dict[str, Any]) -> str:
    """Who acts, where nobody is named."""
    known = physgym.get_system(env, kwargs).knows
    return config.policy or ("controller" if "equations" in known else "random")


def load_model(config: VisualizeConfig) -> Any:
    """The world model of the run, which must be of the env that was asked for."""
    import worldmodels

    model = worldmodels.load(str(config.run))
    name = model.spec.env_name
    if config.env and physgym.get_system(config.env).name != name:
        raise cli.UsageError(f"--env {config.env} is not the env of the run, which is {name}")
    return model


def draw(config: VisualizeConfig, folder: Path) -> list[Path]:
    """Write the pictures of the run's model into ``folder``."""
    from worldmodels.data import load_dataset, resolve_dataset
    from worldmodels.data.cache import dataset_of
    from worldmodels.films.viewer import viewer_of
    from worldmodels.storage.runs import RunFolder

    model = load_model(config)
    if config.dataset is not None:
        dataset = load_dataset(resolve_dataset(config.dataset, model.spec.env_name))
    else:
        dataset = dataset_of(RunFolder.open(str(config.run)))
    return viewer_of(model.spec.medium).pictures(model, dataset, folder, config.seed)
