"""`Task`: the arguments of an environment, checked once, and what follows from them for single and
vector envs.
"""

from __future__ import annotations

import difflib
import inspect
import itertools
import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from gymnasium import spaces

from physgym.compile.program import Program
from physgym.elementwise import wrap
from physgym.system import REWARDS, System, check_dt, check_substeps, get_system

OBS_MODES = ("state", "embedded", "pixels", "state_pixels")
ACTION_MODES = ("discrete", "continuous")
RESET_OPTIONS = ("state", "params", "randomize")


class Task:
    """A system with observation and action modes, parameters, reward, time step and integrator.

    The arguments are those of `physgym.env.PhysicsEnv`, where they are described; ValueError names
    a bad one.
    """

    def __init__(
        self,
        system: str,
        obs_mode: str = "state",
        action_mode: str = "discrete",
        params: Mapping[str, float] | None = None,
        randomize: bool | Mapping[str, Any] = False,
        observe_params: bool = False,
        reward: str = "dense",
        dt: float | None = None,
        integrator: str | None = None,
        substeps: int | None = None,
        start: str | None = None,
        image_size: int = 64,
    ) -> None:
        self._arguments = dict(locals())
        del self._arguments["self"]
        self.system: System = get_system(system)
        self.obs_mode = _choice("obs_mode", obs_mode, OBS_MODES)
        self.action_mode = _choice("action_mode", action_mode, ACTION_MODES)
        self.discrete = action_mode == "discrete"
        self.start = _choice(
            "start", self.system.starts[0] if start is None else start, self.system.starts
        )
        self.base = self.system.check_params(params)
        self.ranges = _ranges(self.system, randomize)
        self.reward = _choice("reward", reward, REWARDS[:4])
        if self.start != self.system.starts[0] and reward in ("dense", "sparse"):
            self.reward = "alive"
        self.dt = check_dt(self.system.dt if dt is None else dt)
        self.integrator = self.system.check_integrator(integrator)
        check_substeps(substeps)
        if (
            isinstance(image_size, bool)
            or not isinstance(image_size, int)
            or not 16 <= image_size <= 1024
        ):
            raise ValueError(
                f"image_size={image_size!r} must be a whole number of pixels from 16 to 1024"
            )
        self.image_size = image_size
        self.observe_params = bool(observe_params)
        if self.observe_params and obs_mode == "pixels":
            raise ValueError(
                'observe_params=True needs a state in the observation: use obs_mode="state_pixels"'
            )
        self.substeps = substeps
        self.program: Program | None = None
        self.count = 1
        if self.integrator != "dop853":
            self.program, self.count = self.system.program(
                self.integrator, substeps, self.reward, self.dt, self._corners()
            )
        self.limit = self._largest()
        self.action_space = self._action_space()
        self.observation_space = self._observation_space()
        self.constants_fixed = not self.ranges

    def __reduce__(self) -> tuple[Any, ...]:
        return (_rebuild, (self._arguments,))

    def __deepcopy__(self, memo: Any) -> Task:
        return self

    # -- spaces ------------------------------------------------------------------------------------

    def _corners(self) -> Any:
        """Parameters as rows: all combinations of the ends of their ranges."""
        pairs = zip(self.base._fields, self.base, strict=True)
        ends = [self.ranges.get(name, (value,)) for name, value in pairs]
        return self.base._make(np.array(list(itertools.product(*ends))).T)

    def _check_accuracy(self, params: Any) -> None:
        """ValueError for parameters that need many more sub-steps than this env was made with."""
        if self.program is None or self.program.adaptive or self.substeps is not None:
            return
        _, needed = self.system.program(self.integrator, None, "none", self.dt, params)
        if needed > 1.5 * self.count + 1:
            raise ValueError(
                f"params {params._asdict()} need {needed} sub-steps, but this env was made with "
                f"{self.count}: pass them (or a range that holds them) to make(), or substeps="
            )

    def _largest(self) -> Any:
        """Parameters at the top of their ranges, for bounds."""
        return self.base._replace(**{name: high for name, (_, high) in self.ranges.items()})

    def _action_space(self) -> spaces.Space[Any]:
        if self.discrete:
            return spaces.Discrete(len(self.system.discrete_actions))
        return spaces.Box(-1.0, 1.0, (self.system.action_size,), np.float32)

    def _observation_space(self) -> spaces.Space[Any]:
        pixels = spaces.Box(0, 255, (self.image_size, self.image_size, 3), np.uint8)
        if self.obs_mode == "pixels":
            return pixels
        high = self.system.observation_high(
            "embedded" if self.obs_mode == "embedded" else "state", self.limit
        )
        low = -high
        if self.observe_params:
            bounds = [
                self.ranges.get(n, (v, v))
                for n, v in zip(self.base._fields, self.base, strict=True)
            ]
            low = np.concatenate([low, np.array([b[0] for b in bounds], np.float32)])
            high = np.concatenate([high, np.array([b[1] for b in bounds], np.float32)])
            low[-len(bounds) :] = 0.0
            high[-len(bounds) :] = np.maximum(2.0 * high[-len(bounds) :], 1.0)
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

        return transition(self.system, self.reward)

    def constants(self, params: Any) -> Any:
        """What `transition` needs of `params` (floats or rows)."""
        if self.program is None:
            return params
        return self.program.prepare(params, 0.0 if self.program.adaptive else self.dt / self.count)

    # -- starts ------------------------------------------------------------------------------------

    def sample(
        self, rng: np.random.Generator, options: Mapping[str, Any]
    ) -> tuple[tuple[float, ...], Any]:
        """Draw (state, params) of a new episode: parameters first, then the state; `options` as in
        `reset`.
        """
        unknown = sorted(set(options) - set(RESET_OPTIONS))
        if unknown:
            close = difflib.get_close_matches(unknown[0], RESET_OPTIONS, n=1)
            hint = f"did you mean {close[0]!r}? " if close else ""
            raise ValueError(
                f"unknown reset option {unknown[0]!r}; {hint}choose of {', '.join(RESET_OPTIONS)}"
            )
        ranges = self.ranges
        if "randomize" in options:
            ranges = _ranges(self.system, options["randomize"])
            outside = sorted(set(ranges) - set(self.ranges))
            if outside and self.observe_params:
                raise ValueError(
                    f"options['randomize'] draws {outside}, for which the observation space has "
                    "no room"
                )
        params = self.system.sample_params(rng, ranges, self.base)
        if options.get("params"):
            params = self.system.check_params(options["params"], params)
            self._check_accuracy(params)
        if options.get("state") is not None:
            return self.system.check_state(options["state"], params), params
        return self.system.sample_state(rng, params, self.start), params

    # -- observations ------------------------------------------------------------------------------

    def observe(self, state: tuple[float, ...], params: Any) -> Any:
        """The observation of one state (floats)."""
        if self.obs_mode == "pixels":
            return self.picture(state, params)
        vector = self._clipped(np.array(self._features(state, params), dtype=np.float32))
        return (
            {"state": vector, "pixels": self.picture(state, params)}
            if self.obs_mode == "state_pixels"
            else vector
        )

    def features(self, state: tuple[float, ...]) -> list[float]:
        """State components as observed, unclipped."""
        angles = self.system.angles
        if self.obs_mode == "embedded":
            pairs = (
                (math.cos(x), math.sin(x)) if i in angles else (x,) for i, x in enumerate(state)
            )
            return [x for pair in pairs for x in pair]
        return [wrap(x) if i in angles else x for i, x in enumerate(state)]

    def _features(self, state: tuple[float, ...], params: Any) -> list[float]:
        return [*self.features(state), *params] if self.observe_params else self.features(state)

    def _clipped(self, vector: np.ndarray) -> np.ndarray:
        space: Any = self.observation_space
        box = space["state"] if self.obs_mode == "state_pixels" else space
        return np.clip(np.nan_to_num(vector, nan=0.0), box.low, box.high)

    def observe_rows(self, states: np.ndarray, params: np.ndarray) -> Any:
        """Observations of states (N, D) with parameters (N, P), batched."""
        if self.obs_mode == "pixels":
            return self._pictures(states, params)
        vectors = self.system.observe(
            states, "embedded" if self.obs_mode == "embedded" else "state"
        )
        if self.observe_params:
            vectors = np.concatenate([vectors, params.astype(np.float32)], axis=-1)
        vectors = self._clipped(vectors)
        return (
            {"state": vectors, "pixels": self._pictures(states, params)}
            if self.obs_mode == "state_pixels"
            else vectors
        )

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


def _choice(argument: str, value: Any, choices: tuple[str, ...]) -> str:
    if value not in choices:
        raise ValueError(f"{argument}={value!r} is unknown; choose one of {', '.join(choices)}")
    return str(value)


def _ranges(system: System, randomize: Any) -> dict[str, tuple[float, float]]:
    """The ranges that `randomize` (True, False or {name: (low, high)}) draws from."""
    if randomize is None or isinstance(randomize, bool):
        return dict(system.ranges) if randomize else {}
    if not isinstance(randomize, Mapping):
        raise ValueError(
            f"randomize={randomize!r} must be True, False or a dict of name: (low, high)"
        )
    ranges = {}
    for name, bounds in randomize.items():
        try:
            low, high = bounds
        except (TypeError, ValueError):
            raise ValueError(f"randomize[{name!r}]={bounds!r} must be (low, high)") from None
        for value in (low, high):
            system.check_params({name: value})
        low, high = float(low), float(high)
        if low > high:
            raise ValueError(f"randomize[{name!r}]={bounds!r} has low > high")
        ranges[name] = (low, high)
    return ranges
