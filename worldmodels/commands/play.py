"""Steer a learned world and the truth beside it, with the same keys, in a window.

    physgym play --run outputs/.../port_hamiltonian
    physgym play --env spaceship                 # the truth alone

Both begin at one start and get the same actions. A letter or an arrow steers (which ones, the window
says), R goes back to the start, N to another one, Esc leaves. It needs a display, and pygame:
pip install 'physgym[play]'.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from worldmodels.commands import terminal as cli

if TYPE_CHECKING:
    from worldmodels.films.pairs import Side
    from worldmodels.films.playing import Played


@dataclass(frozen=True)
class PlayConfig:
    """What to steer."""

    run: Path | None = None
    """Run or checkpoint folder of a world model, which is steered beside the truth."""
    env: str | None = None
    """System to steer alone (a name or an env id); with --run, that of the run."""
    seed: int = 0
    """Seed of the first start; N leads to the next one's."""
    steps: int | None = None
    """Steps of an episode; None: the env's own limit."""
    size: int = 480
    """Width of a panel in pixels; that of a model of pixels is the multiple of its picture's width that
    comes closest."""
    speed: float = 1.0
    """1: real time; 0.5: half as fast."""

    def check(self) -> None:
        """Raises UsageError for a value that cannot be."""
        if self.run is None and self.env is None:
            raise cli.UsageError(
                "give --run RUN (a world model beside the truth) or --env NAME (the truth)"
            )
        if not 0 <= self.seed < 2**31:
            raise cli.UsageError(f"--seed {self.seed} is not valid: expected 0 to {2**31 - 1}")
        if self.steps is not None and self.steps < 1:
            raise cli.UsageError(f"--steps {self.steps} is not valid: expected 1 or more")
        if not 64 <= self.size <= 2048:
            raise cli.UsageError(f"--size {self.size} is not valid: expected 64 to 2048 pixels")
        if not 0 < self.speed <= 100:
            raise cli.UsageError(
                f"--speed {self.speed} is not valid: expected a number above 0, up to 100"
            )


def main() -> None:
    """Open the window that the command line asks for, and say what was earned in it."""
    config = cli.parse(PlayConfig, description=__doc__)
    config.check()
    from physgym.steering import SteeringWindow
    from worldmodels.films.playing import play

    window = SteeringWindow(f"PhysGym {config.run or config.env}")
    window.check()  # a missing display is said before any work
    sides = sides_of(config)
    try:
        played = play(sides, window, config.seed, config.speed / sides[0].dt)
    finally:
        window.close()
        for side in sides:
            side.env.close()
    if played:
        report(sides, played)


def sides_of(config: PlayConfig) -> list[Side]:
    """The true env, and the learned one where a run is named."""
    import gymnasium

    import physgym
    from worldmodels.films.pairs import Side

    limit: dict[str, Any] = {} if config.steps is None else {"max_episode_steps": config.steps}
    if config.run is None:
        env = gymnasium.make(physgym.get_system(str(config.env)).env_id, **limit)
        return [Side(env, "true", config.size)]
    import worldmodels
    from worldmodels.envs.single import make_truth

    model = worldmodels.load(config.run)
    name = model.spec.env_name
    if config.env and physgym.get_system(config.env).name != name:
        raise cli.UsageError(f"--env {config.env} is not the env of the run, which is {name}")
    truth, learned = make_truth(model, **limit), worldmodels.make_env(model, **limit)
    return [Side(truth, "true", config.size), Side(learned, "learned", config.size)]


def report(sides: list[Side], played: list[Played]) -> None:
    """Print a line an episode."""
    names = [side.name for side in sides]
    columns = ["episode", "seed"]
    columns += [f"{what}, {name}" for name in names for what in ("steps", "return", "end")]
    rows = []
    for number, episode in enumerate(played, start=1):
        cells = zip(episode.steps, episode.returns, episode.endings, strict=True)
        rows.append([number, episode.seed, *(x for s, r, e in cells for x in (s, r, e or "left"))])
    cli.print_table("played", columns, rows)
