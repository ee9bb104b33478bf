"""The whole tool on a pendulum in a few minutes: collect, train, compare, film, plan.

    physgym demo

Needs no account, network, GPU or display. Everything it makes lies in outputs/demo-<time>/.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

import physgym
from worldmodels.commands import terminal as cli
from worldmodels.commands.evaluate import show

if TYPE_CHECKING:
    from worldmodels.data import Dataset
    from worldmodels.films.recording import Policy

MODELS = ("jump", "port_hamiltonian")
PLANNED_IN, FILMED = MODELS  # the faster, and the one that is asked for more
AGENTS = {
    "nothing": "zero",
    "random": "random",
    "hand-written controller": "controller",
    "planner in the learned model": "planner",
}


@dataclass(frozen=True)
class DemoConfig:
    """How much to do."""

    env: str = "pendulum"
    """System to learn."""
    episodes: int = 200
    """Episodes to collect."""
    epochs: int = 8
    """Epochs to train each model for."""
    agents: int = 4
    """Episodes that each agent plays, in the model and in the truth."""
    seed: int = 0
    """Seed of everything."""
    out: Path | None = None
    """Folder to write to; None: outputs/demo-<time>."""
    quick: bool = False
    """About a minute: fewer episodes, epochs and games, where nothing else is said of them."""

    def settled(self) -> DemoConfig:
        """The config as ``quick`` says: its numbers where those are the defaults."""
        if not self.quick:
            return self
        least = {"episodes": 60, "epochs": 2, "agents": 2}
        default = DemoConfig()
        asked: dict[str, Any] = {
            name: value
            for name, value in least.items()
            if getattr(self, name) == getattr(default, name)
        }
        return replace(self, **asked)

    def check(self) -> None:
        """Raises ValueError for a value that cannot be, before anything is made."""
        from worldmodels.configs.training import default_config
        from worldmodels.data import CollectConfig

        CollectConfig(env=self.env, episodes=self.episodes, seed=self.seed)
        replace(default_config(self.env), epochs=self.epochs)
        for name, least in (("agents", 1), ("episodes", 3)):
            if getattr(self, name) < least:
                raise cli.UsageError(
                    f"--{name} {getattr(self, name)} is not valid: expected {least} or more"
                )


def main() -> None:
    """Run the demo and say where everything lies."""
    config = cli.parse(DemoConfig, description=__doc__).settled()
    config.check()
    began = time.perf_counter()
    import torch

    torch.set_num_threads(1)  # so small a network only waits for a second thread
    out = config.out or Path("outputs") / time.strftime("demo-%Y-%m-%d-%H-%M-%S")
    cli.check_writable(out, folder=True)
    say("1/5", f"collecting {config.episodes} episodes of random actions")
    dataset = collect_buffer(config, out)
    say("2/5", f"training {' and '.join(MODELS)} on them")
    models = {name: train_model(config, name, dataset, out) for name in MODELS}
    say("3/5", "open-loop rollouts against the truth, the baselines and the oracle")
    compare_models(models, dataset, out)
    say("4/5", f"an agent that plans in the {PLANNED_IN} model, there and in the truth")
    run_agents(config, models[PLANNED_IN])
    say("5/5", f"filming it, and random actions: true | learned ({FILMED}) | difference")
    film_agent(config, models[PLANNED_IN], out)
    film_beside_truth(config, models[FILMED], out)
    print(f"\nDone in {time.perf_counter() - began:.0f} s. Everything lies in {out}/:")
    for path in sorted(p for p in out.rglob("*") if p.suffix in (".mp4", ".gif", ".png", ".md")):
        print(f"  {path}")
    for name in MODELS:
        print(f"  {out / name}  (a run: evaluate, visualize and agent take it)")
    options = f"--run {out / FILMED} --policy random --out x.gif"
    print(f"Next: {cli.command('visualize')} {options}")


def say(step: str, text: str) -> None:
    """Announce a step."""
    print(f"\n[{step}] {text}", flush=True)


def collect_buffer(config: DemoConfig, out: Path) -> Dataset:
    """A fresh buffer in the demo's own folder."""
    from worldmodels.data import CollectConfig, collect, load_dataset

    wanted = CollectConfig(env=config.env, name="demo", episodes=config.episodes, seed=config.seed)
    return load_dataset(collect(wanted, root=out / "datasets"))


def train_model(config: DemoConfig, name: str, dataset: Dataset, out: Path) -> Any:
    """Train one structure with its default settings, for a short time, and load its best state."""
    import worldmodels
    from worldmodels.configs.training import default_config
    from worldmodels.training import experiment

    wanted = replace(
        default_config(dataset.env_name, name),
        epochs=config.epochs,
        seed=config.seed,
        dataset=str(dataset.path),
        out=str(out / name),
    )
    began = time.perf_counter()
    result = experiment.train(wanted, dataset)
    seconds = time.perf_counter() - began
    print(f"  {name:<18} validation error {result['best_nmse']:.1e} after {seconds:.0f} s")
    return worldmodels.load(result["run"])


def compare_models(models: dict[str, Any], dataset: Dataset, out: Path) -> None:
    """One table, and plots of error over horizon, energy over time and other step lengths."""
    import worldmodels
    from worldmodels.evaluation.comparison import write_report

    dt_values = [0.5 * dataset.dt, dataset.dt, 2 * dataset.dt]
    with cli.progress_in_shares("comparing") as advance:
        report = worldmodels.evaluate(models, dataset, 100, dt_values=dt_values, advance=advance)
    write_report(report, out / "evaluation")
    show(report)


def run_agents(config: DemoConfig, model: Any) -> None:
    """The same agents in the learned env and in the true one."""
    import worldmodels
    from worldmodels.agents.returns import evaluate_agent
    from worldmodels.envs.single import make_truth

    makers = {
        "in the learned env": lambda: worldmodels.make_env(model, num_envs=config.agents),
        "in the truth": lambda: make_truth(model.spec, num_envs=config.agents),
    }
    rows, steps = [], model.spec.max_episode_steps
    with cli.progress("playing", len(makers) * len(AGENTS) * steps) as advance:
        for name in AGENTS:
            returns = []
            for make in makers.values():
                env = make()
                act = as_agent(policy_of(model, AGENTS[name], config.seed), model, advance)
                returns.append(f"{evaluate_agent(act, env, config.seed).mean:.1f}")
                env.close()
            rows.append([name, *returns])
    title = f"mean return of {config.agents} episodes (at most {steps})"
    cli.print_table(title, ["agent", *makers], rows)


def policy_of(model: Any, name: str, seed: int) -> Policy:
    """A baseline by name, or a planner that imagines in ``model``."""
    from worldmodels.agents.planning import Planner
    from worldmodels.films.recording import baseline

    if name == "planner":
        planner = Planner(model, hold=5, rounds=2, seed=seed)
        return lambda states, params, step: planner(states)
    return baseline(physgym.system_of(model.spec), name, seed)


def as_agent(
    policy: Policy, model: Any, advance: Callable[[], object]
) -> Callable[[np.ndarray], np.ndarray]:
    """A policy as ``evaluate_agent`` wants it: of observations alone."""
    params = physgym.system_of(model.spec).Params()
    steps = itertools.count()

    def act(observations: np.ndarray) -> np.ndarray:
        advance()
        return policy(observations.astype(np.float64), params, next(steps))

    return act


def film_agent(config: DemoConfig, model: Any, out: Path) -> None:
    """A GIF of one true episode of the planner."""
    from worldmodels.films.recording import captions, record
    from worldmodels.films.video import film, write_video

    policy = policy_of(model, "planner", config.seed)
    shown = record(model.spec.env_name, model.spec.env_kwargs, policy, seed=config.seed)
    lines = captions(shown, shown.states)
    frames = film(shown.system, shown.states, shown.controls, shown.params, 240, lines)
    write_video(frames, out / "planner.gif", 1 / shown.dt)


def film_beside_truth(config: DemoConfig, model: Any, out: Path) -> None:
    """An MP4 and a GIF of one true episode of random actions, beside the model's guess of it."""
    from worldmodels.films.recording import record
    from worldmodels.films.video import write_video
    from worldmodels.films.viewer import viewer_of

    spec = model.spec
    recording = record(spec.env_name, spec.env_kwargs, "random", seed=config.seed)
    with cli.progress("drawing and writing", 3 * len(recording.states)) as advance:
        frames = viewer_of(model.spec.medium).film(model, recording, 240, advance)
        for suffix in ("mp4", "gif"):
            write_video(frames, out / f"beside.{suffix}", 1 / recording.dt, advance)
