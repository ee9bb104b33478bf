"""Train a stock agent inside a learned world model, and see what it earns in the truth.

    physgym agent --run outputs/2026-01-31/12-00-00/newtonian --agent ppo
    physgym agent --env pendulum --agent ppo     # in the truth, for comparison

Beside the numbers lie the agent (.zip), what its training episodes earned (.jsonl, and a plot of all of
them), and a film of it in the truth and in the model, from the same start.

Needs the extra `agents` (Stable-Baselines3): pip install 'physgym[agents]'.
"""

from __future__ import annotations

import itertools
import time
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from worldmodels.commands import agent_files
from worldmodels.commands import terminal as cli
from worldmodels.configs.training import LogConfig

if TYPE_CHECKING:
    from gymnasium.vector import VectorEnv

    from worldmodels.agents.returns import Returns


STACK = 3
"""Pictures that an agent sees as one where nobody says."""


@dataclass(frozen=True)
class Arguments:
    """What is trained, and where."""

    run: Path | None = None
    """Run folder (or checkpoint) of a world model to train in."""
    env: str | None = None
    """System to train in instead: the truth itself."""
    agent: Literal["dqn", "ppo", "sac", "td3", "plan"] = "ppo"
    """Agent of Stable-Baselines3 (sac and td3 need continuous actions), or plan: no learning, but a search in
    imagined futures at every step."""
    method: Literal["cem", "icem", "mppi", "shooting", "gradient"] = "cem"
    """Search of --agent plan."""
    horizon: int = 40
    """Steps that --agent plan looks ahead."""
    hold: int = 2
    """Steps that --agent plan holds an action, and a plan."""
    steps: int = 200_000
    """Env steps, over all envs together."""
    num_envs: int = 32
    """Envs stepped together."""
    episodes: int = 64
    """Episodes of each evaluation."""
    seed: int = 0
    """Seed of the agent and of the envs."""
    obs_mode: Literal["state", "embedded", "pixels"] | None = None
    """Observations: embedded shows angles as (cos, sin), pixels 64 x 64 pictures; None: embedded, or
    what a model of pixels shows."""
    stack: int | None = None
    """Pictures that the agent sees as one, so that motion is visible; None: 3 of pictures, else 1."""
    compare: bool = False
    """With --run: train a second agent in the truth, on the same budget."""
    device: str = "auto"
    """Where the agent's networks run: cpu, cuda, cuda:N or mps. auto: CUDA where pictures are seen and it
    is there; else the CPU, which is faster for networks this small."""
    film: bool = True
    """Film the trained agent."""
    out: Path | None = None
    """File for the numbers, as JSON, and all others beside it; None: RUN/agents/, or
    outputs/<date>/<time>/agent/ where there is no run."""
    log: LogConfig = field(default_factory=LogConfig)
    """Logging."""


def main() -> None:
    """Train the agent that the command line names, and say what it earns."""
    args = cli.parse(Arguments, description=__doc__)
    if (args.run is None) == (args.env is None):
        raise cli.UsageError(
            "give either --run RUN (train in a world model) or --env NAME (the truth)"
        )
    if args.compare and args.run is None:
        raise cli.UsageError("--compare trains in the truth beside a world model: name its --run")
    if not 0 <= args.seed < 2**31:
        raise cli.UsageError(f"--seed {args.seed} is not valid: expected 0 to {2**31 - 1}")
    if args.steps < 1 or args.num_envs < 1 or args.episodes < 1:
        raise cli.UsageError("--steps, --num-envs and --episodes must be at least 1")
    out = args.out or _default_out(args)
    cli.check_writable(out)
    _check_agent(args)
    _check_device(args)
    places, structure = _places(args)
    for make in places.values():
        env = make(1)  # an option that one of the envs refuses is said before the work
        stack = _stack(args, env)
        env.close()
    args = replace(args, stack=stack)
    results = agent_files.Results(args, out, list(places), structure)
    for place in [name for name in places if name == "model" or args.compare or not args.run]:
        with results.logger(place) as logger:
            agent, curve, seconds = (_plan if args.agent == "plan" else _train)(
                args, place, places[place], logger
            )
            if args.agent != "plan":  # which has nothing to keep
                results.keep(place, agent)
            earned = {name: _evaluate(args, agent, make) for name, make in places.items()}
            if args.film:
                singles = {name: make(None) for name, make in places.items()}
                results.film(place, agent, singles, stack)
            results.add(place, seconds, earned, curve, logger)
    results.report()


def _default_out(args: Arguments) -> Path:
    """A new name in the run's folder, or in a dated one where the agent belongs to no run."""
    from worldmodels.storage.runs import run_of

    folder = Path("outputs") / time.strftime("%Y-%m-%d/%H-%M-%S") / "agent"
    if args.run and (run_of(args.run) / "checkpoints").is_dir():
        folder = run_of(args.run) / "agents"
    name = f"{args.agent}-seed{args.seed}"
    names = (name if count == 1 else f"{name}-{count}" for count in itertools.count(1))
    return next(folder / f"{name}.json" for name in names if not any(folder.glob(f"{name}[.-]*")))


def _check_agent(args: Arguments) -> None:
    """Raise ValueError for an agent that cannot serve the run's actions; loads nothing heavy."""
    from worldmodels.agents.stable_baselines import check_actions
    from worldmodels.storage.checkpoint import CONFIG, find_checkpoint
    from worldmodels.storage.files import StorageError, read_sealed

    if args.run is None:
        return  # the true env is made with the actions that the agent needs
    folder = find_checkpoint(args.run)
    try:
        spec = read_sealed(folder / CONFIG)["spec"]
    except (StorageError, KeyError):
        return  # loading says what is wrong with it, or falls back to the checkpoint before
    if args.agent != "plan":
        check_actions(args.agent, spec["action_kind"] == "discrete")


def _check_device(args: Arguments) -> None:
    """Raise DeviceError for a device that is not there."""
    if args.device != "auto":
        from worldmodels.training.devices import resolve_device

        resolve_device(args.device)


def _places(args: Arguments) -> tuple[dict[str, Any], str]:
    """Makers of envs by name, "model" (with --run) and "truth", and the structure of the model.

    A maker takes a number of envs, or None for a single one.
    """
    import gymnasium

    import physgym
    import worldmodels
    from worldmodels.envs.single import foreign_env, make_truth

    common: dict[str, Any] = {}
    if args.run is None:
        common["obs_mode"] = args.obs_mode or "embedded"
        system = physgym.get_system(str(args.env))
        if "equations" not in system.knows:
            _refuse_mode(args, system.env_id)
            return {"truth": lambda n: foreign_env(system.env_id, n)}, ""
        if args.agent in ("sac", "td3"):
            common["action_mode"] = "continuous"
        mode: dict[str, Any] = {
            "vectorization_mode": "vector_entry_point",
            "autoreset_mode": "SameStep",
        }
        return {
            "truth": lambda n: (
                gymnasium.make(system.env_id, **common)
                if n is None
                else gymnasium.make_vec(system.env_id, num_envs=n, **mode, **common)
            )
        }, ""
    model = worldmodels.load(args.run)
    if model.spec.foreign:
        _refuse_mode(args, model.spec.env_name)
    else:
        common["obs_mode"] = args.obs_mode or ("pixels" if model.spec.image_size else "embedded")

    def of(n: int | None) -> dict[str, Any]:
        return common if n is None else {**common, "autoreset_mode": "SameStep"}

    config: Any = model.config
    return {
        "model": lambda n: worldmodels.make_env(model, num_envs=n, **of(n)),
        "truth": lambda n: make_truth(model.spec, num_envs=n, **of(n)),
    }, getattr(config, "structure", config.name)


def _refuse_mode(args: Arguments, env_id: str) -> None:
    """Raise UsageError for another observation than the env's own."""
    if args.obs_mode is not None:
        raise cli.UsageError(
            f"--obs-mode {args.obs_mode} is of systems of PhysGym, and {env_id} has its own"
        )


def _train(args: Arguments, place: str, make: Any, logger: Any) -> tuple[Any, Any, float]:
    """The agent, what its training episodes earned, and how long it took."""
    from worldmodels.agents.learning import LearningCurve
    from worldmodels.agents.stable_baselines import train_agent

    env: VectorEnv = make(args.num_envs)
    curve = LearningCurve(args.steps, logger.log)
    begun, done = time.perf_counter(), 0
    with cli.progress(f"training {args.agent} in the {place}", args.steps) as advance:

        def report(steps: int) -> None:
            nonlocal done
            advance(steps - done)
            done = steps

        stack = _stack(args, env)
        agent = train_agent(
            env, args.agent, args.steps, args.seed, report, stack, args.device, curve.add
        )
    env.close()
    curve.close()
    return agent, curve, time.perf_counter() - begun


def _plan(args: Arguments, place: str, make: Any, logger: Any) -> tuple[Any, Any, float]:
    """A planner in ``place``, which needs no training."""
    from worldmodels.agents.learning import LearningCurve
    from worldmodels.agents.planning import Planner

    planner = Planner(make(None), args.method, horizon=args.horizon, hold=args.hold, seed=args.seed)
    curve = LearningCurve(args.steps, logger.log)
    curve.close()
    return planner, curve, 0.0


def _stack(args: Arguments, env: Any) -> int:
    """Observations that are seen as one. Raises ValueError where they cannot be."""
    from worldmodels.agents.stable_baselines import check_stack

    space = getattr(env, "single_observation_space", env.observation_space)
    pictures = len(space.shape or ()) == 3
    stack = args.stack if args.stack is not None else STACK if pictures else 1
    check_stack(stack, pictures)
    return stack


def _evaluate(args: Arguments, agent: Any, make: Any) -> Returns:
    from worldmodels.agents.returns import evaluate_agent, greedy

    env = make(args.episodes)
    policy = agent if args.agent == "plan" else greedy(agent, _stack(args, env))
    result = evaluate_agent(policy, env, seed=args.seed + 1_000_000)
    env.close()
    return result
