"""Watch a system, or a world model beside it: in a window, or as a film.

    python scripts/visualize.py --env pendulum --policy controller --out pendulum.gif
    python scripts/visualize.py --run outputs/.../port_hamiltonian --out beside.mp4

With --run the panels are true | learned | difference: the model starts from the true state,
gets the same actions and never sees the truth again. Without --out a window opens.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import cli
import numpy as np
import tyro

import physgym


@dataclass(frozen=True)
class VisualizeConfig:
    """What to show."""

    env: str | None = None
    """System to show (a name or an env id); None: that of the run, or the pendulum."""
    run: Path | None = None
    """Run or checkpoint folder of a world model to show beside the truth."""
    policy: Literal["controller", "random", "zero"] = "controller"
    """Who acts: the system's hand-written controller, chance, or nobody."""
    out: Path | None = None
    """File to write, .mp4 or .gif; None: a window on the screen."""
    steps: int | None = None
    """Steps to show; None: one episode."""
    seed: int = 0
    """Seed of the start and of the random policy."""
    size: int | None = None
    """Width of a panel in pixels; None: 480, or 360 beside a model."""
    speed: float = 1.0
    """1: real time; 2: twice as fast."""

    def check(self) -> None:
        """Raises UsageError for a value that cannot be."""
        if self.steps is not None and self.steps < 1:
            raise cli.UsageError(f"--steps {self.steps} is not valid: expected 1 or more")
        if self.size is not None and not 16 <= self.size <= 4096:
            raise cli.UsageError(f"--size {self.size} is not valid: expected 16 to 4096 pixels")
        if not 0 < self.speed <= 1000:
            raise cli.UsageError(f"--speed {self.speed} is not valid: expected a number above 0")
        if self.out is not None and self.out.suffix.lower() not in (".mp4", ".gif"):
            raise cli.UsageError(f"--out {self.out} is not valid: expected a name in .mp4 or .gif")
        if self.out is not None:
            cli.check_writable(self.out)


def main() -> None:
    """Show what the command line asks for."""
    config = tyro.cli(VisualizeConfig, description=__doc__)
    config.check()
    if config.out is None:
        show(config)
        return
    from worldmodels.video import write_video

    frames, fps = (beside if config.run else alone)(config)
    with cli.progress("writing", len(frames)) as advance:
        path = write_video(frames, config.out, fps * config.speed, advance)
    print(f"{path}: {len(frames)} frames, {len(frames) / fps / config.speed:.1f} s")


def show(config: VisualizeConfig) -> None:
    """Show it in a window until it ends or the user closes it."""
    from physgym.rendering import Window

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
    from worldmodels.recording import captions, record
    from worldmodels.video import film

    shown = record(config.env or "pendulum", {}, config.policy, config.steps, config.seed)
    lines = captions(shown, shown.states)
    with cli.progress("drawing", len(lines)) as advance:
        size = config.size or 480
        drawn = film(shown.system, shown.states, shown.controls, shown.params, size, lines, advance)
    return drawn, 1 / shown.dt


def beside(config: VisualizeConfig) -> tuple[np.ndarray, float]:
    """Film of the truth, a model and their difference, and its frames a second."""
    import worldmodels
    from worldmodels.recording import film_beside, predict, record

    model = worldmodels.load(str(config.run))
    spec = model.spec
    if config.env and physgym.get_system(config.env).name != spec.env_name:
        raise cli.UsageError(
            f"--env {config.env} is not the env of the run, which is {spec.env_name}"
        )
    recording = record(spec.env_name, spec.env_kwargs, config.policy, config.steps, config.seed)
    learned = predict(model, recording)
    with cli.progress("drawing", 2 * len(learned)) as advance:
        film = film_beside(recording, learned, config.size or 360, advance)
    return film, 1 / recording.dt


if __name__ == "__main__":
    cli.main_guard(main)
