"""`Task`: the arguments of an environment, checked once, and what follows from them for single and
vector envs.
"""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from gymnasium import spaces

from physgym import observations, validation
from physgym.actions import ActionKind
from physgym.compile.program import Program
from physgym.rewards import Reward, check_reward, portable
from physgym.starts import Starts, choose_start, decide
from physgym.system import System, get_system
from physgym.variants import chosen

OBS_MODES = ("state", "embedded", "pixels", "state_pixels")
ACTION_MODES = ("discrete", "continuous")


class Task:
    """A system with observation and action modes, parameters, reward, time step and integrator.

    The arguments are those of `physgym.env.PhysicsEnv`; ValueError names a bad one.
    """

    def __init__(
        self,
        system: str,
        obs_mode: str = "state",
        action_mode: str = "discrete",
        params: Mapping[str, float] | None = None,
        randomize: bool | Mapping[str, Any] = False,
        observe_params: bool = False,
        reward: str | Reward = "dense",
        dt: float | None = None,
        integrator: str | None = None,
        substeps: int | None = None,
        start: str | None = None,
        image_size: int = 64,
        bodies: int | None = None,
        torques: str | None = None,
        energy: tuple[float, float] | None = None,
    ) -> None:
        self.system: System = chosen(get_system(system), {"bodies": bodies, "torques": torques})
        choose = validation.choice_of
        self.obs_mode = choose("obs_mode", obs_mode, OBS_MODES)
        self.action_mode = choose("action_mode", action_mode, ACTION_MODES)
        self.discrete = action_mode == "discrete"
        kinds = self.system.starts
        self.start, self.band = choose_start(self.system, kinds[0], start, energy)
        self.base = self.system.check_params(params)
        self.ranges = validation.check_ranges(self.system, randomize)
        self.reward: Any = check_reward(reward)
        if self.start not in (kinds[0], "energy") and self.reward in ("dense", "sparse"):
            self.reward = "alive"
        self.kind: str = "none" if callable(self.reward) else self.reward
        """Kind of reward that is compiled with the equations."""
        self.dt = validation.check_dt(self.system.dt if dt is None else dt)
        self.integrator = self.system.check_integrator(integrator)
        self.substeps = validation.check_substeps(substeps)
        self.image_size = validation.count_of("image_size", image_size, 16, 1024, " of pixels")
        self.observe_params = validation.truth_of("observe_params", observe_params)
        if self.observe_params and obs_mode == "pixels":
            raise ValueError(
                'observe_params=True needs a state in the observation: use obs_mode="state_pixels"'
            )
        decided = ("obs_mode", "action_mode", "observe_params", "dt", "integrator", "substeps")
        self._arguments = {name: getattr(self, name) for name in (*decided, "start", "image_size")}
        self._arguments["energy"] = self.band
        self._arguments |= {"system": self.system.name, "params": self.base._asdict()}
        self._arguments |= {
            "randomize": self.ranges,
            "reward": reward if callable(reward) else str(reward),
        }
        with np.errstate(all="ignore"):
            self._settle()

    def _settle(self) -> None:
        """What follows from the arguments: starts, program, spaces; ValueError where they clash."""
        self.starts = Starts(self.system, self.start, self.base, self.ranges, {}, band=self.band)
        corners = self.starts.corners()
        self.program: Program | None = None
        self.count = 1
        if self.integrator != "dop853":
            self.program, self.count = self.system.program(
                self.integrator, self.substeps, self.kind, self.dt, corners
            )
        tops = {name: high for name, (_, high) in self.ranges.items()}
        self.limit = self.base._replace(**tops)
        """Parameters at the top of their ranges, for bounds."""
        self.starts.check_startable(corners)
        size, count = self.system.action_size, len(self.system.discrete_actions)
        self.actions = ActionKind(count, 0) if self.discrete else ActionKind(0, size)
        self.action_space = self._action_space()
        self.observation_space = self._observation_space()
        space: Any = self.observation_space
        self._box = space["state"] if self.obs_mode == "state_pixels" else space
        self.constants_fixed = not self.ranges

    def __reduce__(self) -> tuple[Any, ...]:
        return (_rebuild, ({**self._arguments, "reward": portable(self._arguments["reward"])},))

    def __deepcopy__(self, memo: Any) -> Task:
        return self

    def replaced(self, **arguments: Any) -> Task:
        """This task with other `arguments`; ValueError as on making one."""
        return Task(**{**self._arguments, **arguments})

    # -- spaces ------------------------------------------------------------------------------------

    def _action_space(self) -> spaces.Space[Any]:
        if self.discrete:
            return spaces.Discrete(len(self.system.discrete_actions))
        return spaces.Box(-1.0, 1.0, (self.system.action_size,), np.float32)

    def _observation_space(self) -> spaces.Space[Any]:
        pixels = spaces.Box(0, 255, (self.image_size, self.image_size, 3), np.uint8)
        if self.obs_mode == "pixels":
            return pixels
        high = self.system.observation_high(self.obs_mode, self.limit)
        low = -high
        if self.observe_params:
            tops = np.maximum(2.0 * np.array(self.limit, np.float32), 1.0)
            low, high = np.append(low, np.zeros_like(tops)), np.append(high, tops)
        if not np.isfinite(high).all():
            raise ValueError(
                f"parameters up to {self.limit._asdict()} have no finite bounds of observation in "
                "float32: take smaller ones"
            )
        state = spaces.Box(low, high, dtype=np.float32)
        return (
            spaces.Dict({"state": state, "pixels": pixels})
            if self.obs_mode == "state_pixels"
            else state
        )

    # -- one step ----------------------------------------------------------------------------------

    def transition(self, kind: str) -> Callable[..., tuple[Any, ...]]:
        """(state, control, constants, dt, substeps) -> next state's components, reward, energy,
        out_of_bounds, events.

        `kind` is "floats", "arrays" or "tensors". The first two run as machine code where
        `physgym.compile.native` can.
        """
        if self.program is not None:
            if kind == "tensors" or (kind == "floats" and not self.program.adaptive):
                return self.program.function(kind)
            from physgym.compile import native

            return native.transition(self.program, kind)
        from physgym.reference import transition

        return transition(self.system, self.kind)

    def constants(self, params: Any) -> Any:
        """What `transition` needs of `params` (floats or rows)."""
        if self.program is None:
            return params
        return self.program.prepare(params, 0.0 if self.program.adaptive else self.dt / self.count)

    # -- starts ------------------------------------------------------------------------------------

    def starts_of(self, options: Mapping[str, Any] | None) -> Starts:
        """The starts that the options of a reset leave, checked as those of `make` are.

        Raises ValueError for a bad option, and for parameters that this env was not made for: its
        sub-steps are too coarse for them, or its observation space has no room.
        """
        if options is None or (isinstance(options, Mapping) and not options):
            return self.starts
        starts = decide(self.starts, options)
        if starts.ranges != self.ranges or starts.given or starts.band != self.band:
            corners = starts.corners()
            self._check_accuracy(corners)
            self._check_room(corners)
            if starts.state is None:
                starts.check_startable(corners)
        return starts

    def sample(
        self, rng: np.random.Generator, options: Mapping[str, Any] | None = None
    ) -> tuple[tuple[float, ...], Any]:
        """Draw (state, params) of a new episode: parameters first, then the state; `options` as in
        `reset`. A refusal (ValueError) leaves `rng` as it was.
        """
        starts = self.starts_of(options)
        if starts is self.starts:
            return starts.draw(rng)
        before = rng.bit_generator.state
        try:
            return starts.draw(rng)
        except BaseException:
            rng.bit_generator.state = before
            raise

    def _check_accuracy(self, params: Any) -> None:
        """ValueError for parameters that need many more sub-steps than this env was made with."""
        if self.program is None or self.program.adaptive or self.substeps is not None:
            return
        _, needed = self.system.program(self.integrator, None, "none", self.dt, params)
        if needed > 1.5 * self.count + 1:
            raise ValueError(
                f"params {validation.shown(params)} need {needed} sub-steps, but this env was made with "
                f"{self.count}: pass them (or a range that holds them) to make(), or substeps="
            )

    def _check_room(self, params: Any) -> None:
        """ValueError for parameters (rows) whose observations the observation space cannot hold."""
        if self.obs_mode == "pixels":
            return
        with np.errstate(over="ignore"):
            high = self.system.observation_high(self.obs_mode, params)
            if self.observe_params:
                high = np.concatenate([high, np.max(params, axis=1).astype(np.float32)])
        beyond = np.flatnonzero(~(high <= self._box.high[: len(high)]))
        if len(beyond):
            at = int(beyond[0])
            raise ValueError(
                f"params {validation.shown(params)} give observations up to {high[at]:g} in component {at}, "
                f"where the observation space has no room beyond {self._box.high[at]:g}: pass them "
                "(or a range that holds them) to make()"
            )

    # -- observations ------------------------------------------------------------------------------

    def observe(self, state: tuple[float, ...], params: Any) -> Any:
        """The observation of one state (floats)."""
        if self.obs_mode == "pixels":
            return self.picture(state, params)
        with np.errstate(all="ignore"):
            try:
                features = self.features(state)
            except (ArithmeticError, ValueError):  # floats raise where arrays read not a number
                features = self.features(np.array(state))
            vector = np.array([*features, *params] if self.observe_params else features, np.float32)
        vector = observations.clip(vector, self._box)
        if self.obs_mode != "state_pixels":
            return vector
        return {"state": vector, "pixels": self.picture(state, params)}

    def features(self, state: Any) -> list[Any]:
        """State components (floats, NumPy rows or torch rows) as observed, unclipped."""
        return observations.features(self.system, state, self.obs_mode == "embedded")

    def observe_rows(self, states: np.ndarray, params: np.ndarray, inside: bool = False) -> Any:
        """Observations of states (N, D) with parameters (N, P), batched; `inside`: they are known to be within
        their bounds, where there is nothing to clip.
        """
        if self.obs_mode == "pixels":
            return self._pictures(states, params)
        columns = self.features(np.asarray(states, dtype=np.float64).T)
        columns += list(np.asarray(params).T) if self.observe_params else []
        vectors = np.empty((len(states), len(columns)), np.float32)
        with np.errstate(over="ignore"):
            for place, column in enumerate(columns):
                vectors[:, place] = column
        if not inside:
            vectors = observations.clip(vectors, self._box)
        if self.obs_mode != "state_pixels":
            return vectors
        return {"state": vectors, "pixels": self._pictures(states, params)}

    def picture(self, state: tuple[float, ...], params: Any) -> np.ndarray:
        """The pixel observation (image_size, image_size, 3) uint8 of one state."""
        from physgym.rendering import render, warn_of_empty

        scene, view = self.system.scene(state, None, params, False), self.system.view
        picture = render(scene, view, self.image_size)
        warn_of_empty(picture[None], self.system.env_id, view)
        return picture

    def _pictures(self, states: np.ndarray, params: np.ndarray) -> np.ndarray:
        from physgym.rendering import render_batch, warn_of_empty

        rows = zip(states.tolist(), params.tolist(), strict=True)
        scenes = [self.system.scene(tuple(s), None, self.system.Params(*p), False) for s, p in rows]
        pictures = render_batch(scenes, self.system.view, self.image_size)
        warn_of_empty(pictures, self.system.env_id, self.system.view)
        return pictures

    def portrait(
        self, state: tuple[float, ...], control: Any, params: Any, size: int, caption: str
    ) -> np.ndarray:
        """A picture for people, with the action visible."""
        from physgym.rendering import SCREEN, render

        scene = self.system.scene(state, control, params, True)
        return render(scene, self.system.view, size, SCREEN, caption)


def check_names(arguments: Mapping[str, Any], env: type) -> None:
    """TypeError for an argument that neither `env` nor its task takes, with the closest one that they do.

    The first words are Python's own for it: other libraries (TorchRL) find out by them what an env takes.
    """
    signatures = inspect.signature(env), inspect.signature(Task)
    allowed = [
        parameter.name
        for signature in signatures
        for parameter in signature.parameters.values()
        if parameter.kind is not parameter.VAR_KEYWORD
    ]
    for name in arguments:
        if name not in allowed:
            close = difflib.get_close_matches(name, allowed, n=1)
            hint = f"did you mean {close[0]!r}? " if close else ""
            raise TypeError(
                f"{env.__name__}.__init__() got an unexpected keyword argument {name!r}; {hint}"
                f"choose of {', '.join(dict.fromkeys(allowed))}"
            )


def _rebuild(arguments: dict[str, Any]) -> Task:
    return Task(**arguments)
