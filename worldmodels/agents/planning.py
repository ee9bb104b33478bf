"""An agent that does not learn: it imagines many futures, in a world model or in the truth, and takes the best."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from physgym.rewards import Reward, check_reward
from physgym.task import Task
from worldmodels.agents.beliefs import Warm
from worldmodels.agents.foreign_simulator import ForeignSimulator, foreign_of
from worldmodels.agents.futures import Problem
from worldmodels.agents.learned_simulator import LearnedSimulator
from worldmodels.agents.searches import METHODS, Effort, Search
from worldmodels.agents.simulators import Cost, Seen, Simulator, TrueSimulator
from worldmodels.configs.keywords import known_keywords
from worldmodels.configs.schema import (
    converted,
    require,
    require_count,
    require_name,
    require_number,
)
from worldmodels.envs.task import task_of
from worldmodels.envs.vector import DIVERGENCE_FACTOR, check_uncertainty, modality_of
from worldmodels.interface import WorldModel


@known_keywords
class Planner:
    """Searches for the actions that earn most in imagined futures, anew every `hold` steps.

    Call it with observations (N, ...), as a vector env gives them, and it answers with actions (N,) int64, or
    (N, A) float32: it serves `evaluate_agent` and Gymnasium's loops as it is. Every row has a plan, noise and
    memory of its own, so that no row's actions depend on those of others; the same seed plans the same.

    Args:
        env_or_model: where futures are imagined: a `WorldModel` (of states or pictures), a learned env (single
            or vector), a true env of ours (`gymnasium.make("PhysGym/...")`, its vector env), another Gymnasium env
            that can be put into what it shows (CartPole-v1, Pendulum-v1, ...), or a `Simulator`.
        method: "shooting", "cem", "icem", "mppi" or "gradient" (continuous actions alone), see
            `worldmodels.agents.searches`.
        horizon: steps that a future is imagined for.
        hold: steps that each action of a plan is held, and between two plans.
        samples: candidates a row and round; None: what suits the method, as for `elites` and `rounds`.
        elites: of cem and icem, the best candidates, which the next ones are drawn around.
        rounds: times that candidates are made (of "gradient": steps uphill).
        seed: of every row's noise.
        reward: in place of the env's own: a kind ("dense", "sparse", "quadratic"), or a function (state,
            control, next_state, params) as true envs take it (`physgym.rewards`). Not for models of pictures,
            which learned one.
        cost: what to keep small, in place of any reward: (states (B, D), actions (B,) or (B, A) in [-1, 1],
            next states (B, D)) to (B,). A model of pictures hands it pictures (B, S, S, 3), floats in [0, 1],
            for states. "gradient" calls it with tensors. A future that ends goes on paying its last cost.
        uncertainty_penalty: reward lost per unit of an ensemble's disagreement, at every step.
        spread: of cem, icem and mppi: standard deviation of continuous actions where a search begins.
        temperature: of mppi, in units of the spread of a row's returns.
        batch: most futures imagined at once; None: 16384 of states, 512 of pictures.

    A model of pictures reads motion from its last `context_frames` pictures, which the planner remembers with
    the actions that it gave; before as many were seen, the first stands for those before it, at rest.

    Raises:
        ValueError: an argument that is none of these, an env without reward (and no cost), a method that the
            actions do not allow; and, when called, observations of another shape.
    """

    def __init__(
        self,
        env_or_model: Any,
        method: str = "cem",
        *,
        horizon: int = 40,
        hold: int = 2,
        samples: int | None = None,
        elites: int | None = None,
        rounds: int | None = None,
        seed: int = 0,
        reward: str | Reward | None = None,
        cost: Cost | None = None,
        uncertainty_penalty: float = 0.0,
        spread: float | None = None,
        temperature: float | None = None,
        batch: int | None = None,
    ) -> None:
        require_name("method", method, METHODS)
        kind = METHODS[method]
        for name, value, least in (("horizon", horizon, 1), ("hold", hold, 1), ("seed", seed, 0)):
            _check_count(name, value, least, horizon if name == "hold" else 2**63 - 1)
        given: dict[str, Any] = {"samples": samples, "elites": elites, "rounds": rounds}
        given |= {"spread": spread, "temperature": temperature}
        effort = _effort_of(kind, given)
        if batch is not None:
            _check_count("batch", batch, 1)
        self.simulator = simulator_of(env_or_model, reward, cost, uncertainty_penalty)
        self.method, self.horizon, self.hold, self.seed = method, horizon, hold, seed
        if method == "gradient":
            self._check_gradient()
        self.batch = self.simulator.batch if batch is None else batch
        blocks, actions = -(-horizon // hold), self.simulator.actions
        self._search: Search = kind(actions, self.simulator.idle, blocks, effort)
        self._rngs: list[np.random.Generator] = []
        self._warm: Warm = {}
        self._steps: np.ndarray
        self._context: np.ndarray
        self._acted: np.ndarray

    def _check_gradient(self) -> None:
        if self.simulator.actions.count:
            raise ValueError(
                "method='gradient' cannot be had of discrete actions: choose cem, icem, mppi or shooting, or "
                'an env with action_mode="continuous"'
            )
        if self.simulator.no_gradients:
            raise ValueError(f"method='gradient' cannot be had here: {self.simulator.no_gradients}")

    def reset(self, mask: Any = None) -> None:
        """Forget what was planned and seen: of everything (the number of rows and the state of the noise too),
        or of the rows (N,) where `mask` holds, whose episodes start anew.

        Raises ValueError for a mask of another shape.
        """
        if mask is None:
            self._rngs, self._warm = [], {}
            return
        marked = np.asarray(mask)
        if marked.shape != (len(self._rngs),) or marked.dtype != np.bool_:
            raise ValueError(
                f"mask of shape {marked.shape} and type {marked.dtype} is not valid: expected "
                f"({len(self._rngs)},) of bools, one for each row that was planned for"
            )
        self._steps[marked] = 0

    def __call__(self, observations: Any, params: Any = None) -> np.ndarray:
        """Actions (N,) or (N, A) for observations (N, ...).

        Args:
            observations: of all rows, as the env gives them: states, states with angles as (cos, sin), dicts of
                states and pictures, or pictures, where the model sees those. `info["state"]` serves too.
            params: physical parameters where they are not the env's own, a table of numbers or rows (N,), as
                `info["params"]` is; with `observe_params` they are read from the observations.
        """
        shown, told = self.simulator.read(observations, params)
        self._begin(shown)
        self._remember(shown)
        due = np.flatnonzero(self._steps % self.hold == 0)
        if len(due):
            self._plan(due, told)
        self._steps += 1
        actions = self._warm["plan"][:, 0]
        if self._acted.shape[1]:
            self._acted = np.concatenate([self._acted[:, 1:], actions[:, None]], axis=1)
        return self.simulator.to_env(actions)

    @property
    def plans(self) -> np.ndarray:
        """The plans (N, blocks[, A]) of the last search, whose first action is the one that is given."""
        return self._warm["plan"].copy() if self._warm else np.zeros(0)

    def _begin(self, shown: np.ndarray) -> None:
        """Make room for the rows on the first call, and hold later ones to their number."""
        rows, length = len(shown), self.simulator.length
        if self._rngs:
            if rows != len(self._rngs):
                raise ValueError(
                    f"observations of {rows} rows are not valid: expected {len(self._rngs)}, the same rows at "
                    "every step; reset() forgets them"
                )
            return
        self._rngs = [np.random.default_rng([self.seed, row]) for row in range(rows)]
        self._steps = np.zeros(rows, dtype=np.int64)
        self._warm = self._search.fresh(rows)
        self._context = np.repeat(shown[:, None], length, axis=1)
        idle = self._search.belief.idle_plans(rows)[:, :1]
        self._acted = np.repeat(idle, length - 1, axis=1)

    def _remember(self, shown: np.ndarray) -> None:
        """Put what is seen behind what was; rows that start anew have only ever seen this, at rest."""
        new = self._steps == 0
        self._context = np.concatenate([self._context[:, 1:], shown[:, None]], axis=1)
        self._context[new] = shown[new][:, None]
        self._acted[new] = self.simulator.idle

    def _plan(self, rows: np.ndarray, params: np.ndarray) -> None:
        """Search anew for `rows`."""
        own = {name: values[rows] for name, values in self._warm.items()}
        new, later = self._search.fresh(len(rows)), self._search.shifted(own)
        first = self._steps[rows] == 0
        for name, values in later.items():
            mask = first.reshape(-1, *[1] * (values.ndim - 1))
            later[name] = np.where(mask, new[name], values)
        seen = Seen(self._context[rows], self._acted[rows], params[rows])
        problem = Problem(self.simulator, seen, self.horizon, self.hold, self.batch)
        found = self._search.search(problem, later, [self._rngs[row] for row in rows.tolist()])
        for name, values in found.items():
            self._warm[name][rows] = values


def _check_count(name: str, value: Any, least: int, most: int = 2**31 - 1) -> None:
    require_count(name, converted(int, value, name), least, most)


def _effort_of(kind: type[Search], given: dict[str, Any]) -> Effort:
    """The method's usual effort with what is `given`, checked; None is not."""
    chosen = {name: value for name, value in given.items() if value is not None}
    for name, value in chosen.items():
        if name in ("spread", "temperature"):
            require_number(name, converted(float, value, name), 1e-6, 1e6)
        elif name != "elites":
            _check_count(name, value, 1)
    most = chosen.get("samples", kind.usual.samples)
    if "elites" in chosen:
        _check_count("elites", chosen["elites"], 1, most)
    else:
        chosen["elites"] = min(kind.usual.elites, max(1, most // 2))
    return replace(kind.usual, **chosen)


def simulator_of(
    env_or_model: Any,
    reward: str | Reward | None = None,
    cost: Cost | None = None,
    uncertainty_penalty: float = 0.0,
) -> Simulator:
    """What `Planner` imagines futures in, for the arguments that it takes."""
    if reward is not None and cost is not None:
        raise ValueError("reward= beside cost=: give one of them, not both")
    if reward is not None:
        reward = check_reward(reward)
    if isinstance(env_or_model, Simulator):
        require("reward", reward, reward is None, "None, since a Simulator has its own")
        require("cost", cost, cost is None, "None, since a Simulator has its own")
        require(
            "uncertainty_penalty", uncertainty_penalty, not uncertainty_penalty, "0, of a Simulator"
        )
        return env_or_model
    place = getattr(env_or_model, "unwrapped", env_or_model)
    model = place if isinstance(place, WorldModel) else getattr(place, "model", None)
    changes = {} if reward is None else {"reward": reward}
    if isinstance(model, WorldModel):
        penalty, _ = check_uncertainty(model, uncertainty_penalty)
        task = task_of(model, changes)
        if isinstance(getattr(place, "task", None), Task):
            task = place.task.replaced(**changes) if changes else place.task
        given = getattr(place, "given", None)
        return LearnedSimulator(modality_of(model, task, DIVERGENCE_FACTOR, given), cost, penalty)
    if (foreign := foreign_of(place)) is not None:
        require("reward", reward, reward is None, f"None: {foreign.env_id} gives its own")
        return ForeignSimulator(foreign, cost)
    task = getattr(place, "task", place)
    require(
        "env_or_model", env_or_model, isinstance(task, Task),
        "a WorldModel (worldmodels.load), a learned env, an env of physgym, or a Simulator",
    )  # fmt: skip
    if uncertainty_penalty:
        raise ValueError(
            f"uncertainty_penalty={uncertainty_penalty!r} is of an ensemble; the truth is never uncertain"
        )
    return TrueSimulator(task.replaced(**changes) if changes else task, cost)
