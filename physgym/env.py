"""`PhysicsEnv`: one physical system as a Gymnasium environment, on Python floats."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import gymnasium
import numpy as np
from gymnasium.error import ResetNeeded

from physgym.autoreset import parse_seed
from physgym.keyboard import keys_to_action, played
from physgym.observations import frames_per_second
from physgym.rewards import rewarded
from physgym.task import Task, check_names

RENDER_MODES = ["human", "rgb_array"]
_INTEGERS = frozenset((int, np.int64))
"""What spaces sample; other types take the longer way through `ActionKind`."""
RENDER_SIZE = 480
"""Width and height of `render()` [px]."""


class PhysicsEnv(gymnasium.Env[Any, Any]):
    """A controlled physical system; which one, `gymnasium.make("PhysGym/...-v0")` says.

    Args:
        system: name of the system ("pendulum", "cart_pole", "n_body_3"; `physgym list` has all).
        obs_mode: "state" (the vector of the system's page, angles in [-pi, pi]), "embedded" (each
            angle as cos, sin), "pixels" (uint8 (image_size, image_size, 3)) or "state_pixels" (a
            dict of both).
        action_mode: "discrete" or "continuous" (Box(-1, 1), scaled by the limit; beyond it,
            clipped).
        params: parameters that differ from the defaults, e.g. {"mass": 2.0}.
        randomize: draw parameters at every reset, before the state: True for the system's ranges,
            or {name: (low, high)}. What was drawn stands in info["params"].
        observe_params: append the parameters to the state observation, in the order of
            `system.Params`.
        reward: "dense" (in [0, 1]), "sparse" (1 where the error is below half its scale),
            "quadratic" (minus the squared error in units of its scale), "none", or a function of your own,
            (state, control, next_state, params) -> reward, see `physgym.rewards`.
        dt: control step [s]; sub-steps keep the accuracy whatever it is.
        integrator: "euler", "semi_implicit_euler", "leapfrog", "rk4", "yoshida4", "suzuki4", "dop853", or
            "exact" where there is one.
        substeps: None for as many as the accuracy needs, or a number of equal ones.
        start: kind of start state; only three_body has several, and "energy" goes with the next.
        energy: (low, high), parts of a reference of each system (see its page and `physgym.energies`)
            between which the energy of a start is drawn.
        image_size: width and height of pixel observations.
        bodies: how many, where that may be chosen (n_body: 2-8, mass_spring: 1-8).
        torques: "elbow" or "both", of the acrobot.
        render_mode: "rgb_array" or "human".

    `info` always has "state" (float64 (D,)), "energy" [J], "params", "out_of_bounds" (the state
    left its bounds, or the integrator's sub-steps ran out; the episode is then truncated) and the
    system's events, such as "collision". `reset(options={"state": ..., "params": {...},
    "randomize": ..., "energy": (low, high)})` starts anywhere valid, and takes back what an `info`
    held. Options are held to what `make` was: parameters that need many more sub-steps, or more
    room than the observation
    space has, belong there. Starts that are drawn beyond the bounds or inside a collision are drawn
    again. A refused call changes nothing, the random stream included.

    Raises:
        ValueError: an argument or option that is not one of the above; the message names what is
        allowed. gymnasium.error.InvalidAction: an action outside Discrete(n), of a wrong shape or
        type or not finite. gymnasium.error.ResetNeeded: step before reset or after the end.
    """

    metadata = {"render_modes": RENDER_MODES, "render_fps": 20}

    def __init__(
        self, system: str = "pendulum", *, render_mode: str | None = None, **arguments: Any
    ) -> None:
        if render_mode is not None and render_mode not in RENDER_MODES:
            raise ValueError(
                f"render_mode={render_mode!r} is unknown; choose one of "
                f"{', '.join(RENDER_MODES)} or None"
            )
        check_names(arguments, PhysicsEnv)
        self._task = Task(system, **arguments)
        self.render_mode = render_mode
        self.metadata = {
            "render_modes": list(RENDER_MODES),
            "render_fps": frames_per_second(self._task.dt),
        }
        self.action_space = self._task.action_space
        self.observation_space = self._task.observation_space
        self._state: tuple[float, ...] | None = None
        self._params: Any = self._task.base
        self._control: tuple[float, ...] | None = None
        self._over = True
        self._steps = 0
        self._window: Any = None
        self._played = False
        self._bind()

    def _bind(self) -> None:
        task = self._task
        self._transition = task.transition("floats")
        if callable(task.reward):
            self._transition = rewarded(task, self._transition, lambda: self._params)
        self._size = task.system.state_size
        self._event_names = tuple(task.system.events_of((1.0,) * self._size, task.base))
        self._terminates = bool(self._event_names)
        self._dt, self._count = task.dt, task.count
        self._plain = task.obs_mode in ("state", "embedded") and not task.observe_params
        self._wrap = not task.system.angles
        self._adopt(self._params)

    @property
    def system(self) -> Any:
        """The `physgym.System` behind this environment."""
        return self._task.system

    @property
    def task(self) -> Task:
        """The arguments of this environment, and what follows from them."""
        return self._task

    @property
    def dt(self) -> float:
        """Control step [s]."""
        return self._task.dt

    def _adopt(self, params: Any) -> None:
        """Make `params` those of the episode: constants of the program, and the controls of
        discrete actions.
        """
        self._params = params
        self._constants = self._task.constants(params)
        self._named_params = params._asdict()
        if self._task.discrete:
            table = self._task.system.discrete_actions.tolist()
            self._controls = {
                i: self._task.system.control_of(tuple(a), params) for i, a in enumerate(table)
            }

    def reset(
        self, *, seed: int | None = None, options: Mapping[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        """Start an episode; `options` may hold "state", "params" and "randomize"."""
        before = self._np_random, self._np_random_seed
        super().reset(seed=None if seed is None else parse_seed(seed))
        try:
            state, params = self._task.sample(self.np_random, options)
        except BaseException:
            self._np_random, self._np_random_seed = before
            raise
        if params != self._params:
            self._adopt(params)
        self._state, self._control, self._over, self._steps = state, None, False, 0
        info = self._info(
            self._task.system.energy_of(state, params), False, (False,) * len(self._event_names)
        )
        if self.render_mode == "human":
            self._show()
        return self._task.observe(state, params), info

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """Hold `action` for one control step."""
        if self._over:
            raise ResetNeeded("Call reset() before step(): there is no running episode.")
        if self._task.discrete:
            control = self._controls.get(action) if type(action) in _INTEGERS else None
            if control is None:
                control = self._controls[self._task.actions.index(action)]
        else:
            given = played(self._task, action) if self._played else action
            unit = self._task.actions.vector(given)
            control = self._task.system.control_of(unit, self._params)
        size = self._size
        result = self._transition(self._state, control, self._constants, self._dt, self._count)
        state, outside = result[:size], bool(result[size + 2])
        self._state, self._control = state, control
        self._steps += 1
        events = result[size + 3 :]
        terminated = self._terminates and any(events)
        self._over = terminated or outside
        info = self._info(result[size + 1], outside, events)
        if self.render_mode == "human":
            self._show()
        if self._plain and not outside:
            features = state if self._wrap else self._task.features(state)
            return np.array(features, np.float32), result[size], terminated, outside, info
        reward = result[size] if math.isfinite(result[size]) else 0.0
        return self._task.observe(state, self._params), reward, terminated, outside, info

    def _info(self, energy: float, outside: bool, events: tuple[Any, ...]) -> dict[str, Any]:
        info = {
            "state": np.array(self._state),
            "energy": energy,
            "params": self._named_params.copy(),
            "out_of_bounds": outside,
        }
        if events:
            for name, happened in zip(self._event_names, events):  # noqa: B905
                info[name] = bool(happened)
        return info

    # -- pictures ----------------------------------------------------------------------------------

    def render(self) -> np.ndarray | None:
        """A picture (480, 480, 3) uint8 with the action visible ("rgb_array"); "human" draws in
        reset and step.
        """
        if self.render_mode is None:
            gymnasium.logger.warn(
                'render() needs a render_mode: pass render_mode="rgb_array" or "human" to make()'
            )
            return None
        if self._state is None:
            raise ResetNeeded("Call reset() before render(): there is no state to draw.")
        if self.render_mode == "human":
            self._show()
            return None
        return self._portrait()

    def _portrait(self) -> np.ndarray:
        state = self._state or ()
        caption = f"t = {self._steps * self._task.dt:5.2f} s"
        return self._task.portrait(state, self._control, self._params, RENDER_SIZE, caption)

    def _show(self) -> None:
        if self._window is None:
            from physgym.window import Window

            self._window = Window(self._task.system.env_id, optional=True)
        if self._window.opened():
            self._window.show(self._portrait(), fps=self.metadata["render_fps"])

    def close(self) -> None:
        """Close the window, if there is one."""
        if self._window is not None:
            self._window.close()
            self._window = None

    def get_keys_to_action(self) -> dict[tuple[str, ...], Any]:
        """Keys for `gymnasium.utils.play.play`; from then on a bare 0 (no key) is no action to
        continuous ones. Of discrete ones, say which does nothing: `play(env, noop=1)`.
        """
        self._played = True
        return keys_to_action(self._task)

    # -- copies ------------------------------------------------------------------------------------

    def __getstate__(self) -> dict[str, Any]:
        kept = dict(self.__dict__)
        for name in ("_transition", "_constants", "_controls"):
            kept.pop(name, None)
        kept["_window"] = None
        return kept

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._bind()
