"""`WorldModelVectorEnv`: rows of a world model behind Gymnasium's vector interface."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Literal

import gymnasium
import numpy as np
import torch
from gymnasium.error import ResetNeeded
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space

from physgym.autoreset import AutoresetVectorEnv
from physgym.backends import checked_device
from physgym.observations import frames_per_second
from physgym.starts import by_row
from physgym.task import Task, check_names
from worldmodels.envs import task as truth
from worldmodels.envs.judging import Outcome
from worldmodels.envs.modality import Modality, StateModality
from worldmodels.envs.native_steps import NativeBlocks, NativeStep
from worldmodels.envs.observations import Judge, ObservationModality
from worldmodels.envs.pixels import PixelModality
from worldmodels.envs.predictor import Prediction, Predictor, knows_uncertainty
from worldmodels.envs.quick_rows import QuickRows
from worldmodels.envs.starts import Start, Starts, TrueStarts
from worldmodels.interface import WorldModel

DIVERGENCE_FACTOR = 10.0
"""A prediction this many times beyond the training range has diverged."""


class WorldModelVectorEnv(AutoresetVectorEnv, VectorEnv):  # named for skrl, as PhysicsVectorEnv is
    """N rows of a world model as a Gymnasium vector env.

    Spaces, starts, time limit and dt are those of the true env that the model learned from, one of PhysGym
    or any other that it was collected from; of these, rewards and ends are learned too. Of a
    model of states only the next state is predicted: reward and ends are the true env's own. A
    model of pixels serves obs_mode="pixels" alone; an episode begins with a real picture (the model
    also sees those before it, see `worldmodels.envs.pixel_starts`; of a foreign env, the first of a true
    episode under random actions), then pictures, rewards and ends are the model's. A row whose
    prediction is not finite, lies beyond `divergence_factor` times the training range, or could not be
    computed, is truncated with `info["diverged"]` and its last good observation; the other rows go on.

    Args:
        model: a `WorldModel`, or the run or checkpoint folder of one.
        num_envs: N.
        checkpoint: the same as `model`, for callers that can only pass names.
        max_episode_steps: time limit; None: the true env's.
        autoreset_mode: any of Gymnasium's, by name or value.
        flat_info: as in `physgym.PhysicsVectorEnv`, for clients that read no nested info.
        starts: "true", the true env's start distribution; "buffer", any state (picture) of `dataset`.
        dataset: a collected buffer, or its path; for a model of pixels one with pictures.
        uncertainty_penalty: reward lost per unit of an ensemble's `info["uncertainty"]`.
        uncertainty_limit: rows whose uncertainty exceeds it are truncated; see
            `worldmodels.envs.predictor.calibrate_uncertainty`.
        divergence_factor: see above; angles are excepted, turns have no range.
        reward_fn: of a foreign env (one that is not of PhysGym), what gives rewards in place of what was
            learned of them: (observations (N, D), actions as the env takes them, next observations (N, D))
            to (N,).
        terminated_fn: of the same three, which rows end.
        device: where the model runs, such as "cuda"; None: where it is. Without CUDA, the CPU.
        render_mode: "rgb_array" or None.
        arguments: of the true env, where they may differ from those of the buffer: obs_mode,
            reward, params, randomize, start, observe_params, image_size, and dt where the model can
            step by any. What is shown and the kind of reward are fixed for a model of pixels; for one
            of states, the reward may be a function (state, control, next_state, params) too.

    `info` holds what the true env's does (`energy` is the true energy of the predicted state), and
    `diverged`, and for an ensemble `uncertainty`. Of a model of pixels it holds `params` and
    `diverged`: nobody knows its state, nor which event ended an episode.
    `reset(options={"state": ..., "params": ...})` starts every row there; a state (N, D) and
    parameters (N,), such as `info` holds them, give each row its own.

    A model knows the parameters that it learned from: others are refused where it is not told parameters
    (it would move as before), and warned of where it is.

    Raises:
        ValueError: the model does not fit the env it names, or an argument contradicts it.
    """

    metadata = {
        "render_modes": ["rgb_array"],
        "render_fps": 20,
        "autoreset_mode": AutoresetMode.NEXT_STEP,
    }

    def __init__(
        self,
        model: WorldModel | str | Path | None = None,
        num_envs: int = 1,
        *,
        checkpoint: str | Path | None = None,
        max_episode_steps: int | None = None,
        autoreset_mode: str | AutoresetMode = AutoresetMode.NEXT_STEP,
        flat_info: bool = False,
        starts: Literal["true", "buffer"] = "true",
        dataset: Any = None,
        uncertainty_penalty: float = 0.0,
        uncertainty_limit: float | None = None,
        divergence_factor: float = DIVERGENCE_FACTOR,
        reward_fn: Judge | None = None,
        terminated_fn: Judge | None = None,
        device: str | None = None,
        render_mode: str | None = None,
        **arguments: Any,
    ) -> None:
        check_names(arguments, WorldModelVectorEnv)
        self.model = move(resolve_model(model, checkpoint), device)
        self.task = truth.task_of(self.model, arguments)
        limit = (
            self.model.spec.max_episode_steps if max_episode_steps is None else max_episode_steps
        )
        if render_mode not in (None, "rgb_array"):
            raise ValueError(f'render_mode={render_mode!r} is neither "rgb_array" nor None')
        metadata = {**self.metadata, "render_fps": frames_per_second(self.task.dt)}
        super().__init__(num_envs, limit, autoreset_mode, metadata, flat_info)
        self.render_mode = render_mode
        self.single_observation_space = self.task.observation_space
        self.single_action_space = self.task.action_space
        self.observation_space = batch_space(self.single_observation_space, self.num_envs)
        self.action_space = batch_space(self.single_action_space, self.num_envs)
        self.penalty, most = check_uncertainty(self.model, uncertainty_penalty, uncertainty_limit)
        self.uncertainty_limit = np.inf if most is None else most
        self._experience = truth.Experience(self.model, self.task)
        given = {"reward_fn": reward_fn, "terminated_fn": terminated_fn}
        self.given = given
        self._modality = modality_of(self.model, self.task, divergence_factor, given)
        self._starts = _choose_starts(starts, dataset, self._modality)
        self.predictor = Predictor(self._modality, self.num_envs, self.task.dt)
        self._params = np.tile(np.array(self.task.base, dtype=np.float64), (self.num_envs, 1))
        self._named: Any = None
        names = (*self._modality.flags, "diverged")
        self._flags = {name: self.blank(np.bool_) for name in names}
        self._uncertainty = np.zeros(self.num_envs)
        self._doubts = knows_uncertainty(self.model)
        self.taken: np.ndarray | None = None
        self._quick: tuple[Any, QuickRows | None] | None = None

    def _named_params(self) -> Any:
        """Columns (N,): the same object until a row starts anew."""
        if self._named is None:
            self._named = self.task.system.Params(*self._params.T)
        return self._named

    def params_of(self, row: int) -> Any:
        """Parameters of one row's episode, by name."""
        return self.task.system.Params(*self._params[row].tolist())

    def native_step(self) -> NativeStep | NativeBlocks | None:
        """Machine code that steps the rows, and that the true env's own equations can judge by machine code, too.

        None for pictures, foreign envs, a reward that is a function, an integrator without a compiled program, and
        models without machine code.
        """
        task = self.task
        if type(self._modality) is not StateModality or callable(task.reward):
            return None
        return None if task.program is None else self.predictor.native_step()

    @property
    def dt(self) -> float:
        """Seconds a step."""
        return self.task.dt

    def start(self, rows: np.ndarray, options: Mapping[str, Any]) -> None:
        """Draw a beginning for each of `rows` and encode it."""
        if not options and isinstance(self._starts, TrueStarts) and isinstance(self.task, Task):
            drawn = self._starts.draw_rows(self.streams, rows)
        else:
            drawn = self._drawn(rows, options)
        params = np.array([start.params for start in drawn], dtype=np.float64)
        if not options:
            self._experience.check(params)
        self._params = self._params.copy()
        self._params[rows] = params
        self._named = None
        fields = self.task.system.Params._fields
        told = [fields.index(name) for name in self.model.spec.param_names]
        self.predictor.start(rows, drawn, self._params[rows][:, told])
        for flag in self._flags.values():
            flag[rows] = False
        self._uncertainty[rows] = 0.0

    def _drawn(self, rows: np.ndarray, options: Mapping[str, Any]) -> list[Start]:
        """A beginning for each of `rows` by itself; what is refused has drawn nothing."""
        own = by_row(options, self.num_envs)
        per_row = [options if own is None else own[row] for row in rows.tolist()]
        generators = [self.generator(row) for row in rows.tolist()]
        before = [generator.bit_generator.state for generator in generators] if options else []
        try:
            self._check_ranges([options] if own is None else per_row)
            drawn = [
                self._starts.draw(generator, given)
                for generator, given in zip(generators, per_row, strict=True)
            ]
            if options:
                self._experience.check(np.array([start.params for start in drawn], np.float64))
        except Exception:
            for generator, state in zip(generators, before, strict=False):
                generator.bit_generator.state = state
            raise
        return drawn

    def _check_ranges(self, given: Iterable[Mapping[str, Any]]) -> None:
        """Refuse ranges to draw from that the model does not know, whatever would be drawn."""
        for options in given:
            if options.get("randomize") is not None:
                corners = self.task.starts_of(options).corners()
                self._experience.check(np.stack(corners, axis=1))

    def advance(self, actions: Any, resting: Any | None) -> tuple[Any, Any, Any]:
        """Predict one step of every row, and judge it."""
        parsed = truth.parse_actions(self.task, actions, self.num_envs, resting)
        quick = self._quick_rows()
        done = None if quick is None else quick.step(parsed, self._named_params())
        outcome, prediction = done or self._stepped(parsed)
        told = {"out_of_bounds": outcome.out_of_bounds, **outcome.events}
        self._flags = {name: told[name] for name in self._modality.flags}
        rewards, terminated = outcome.rewards, outcome.terminated
        if prediction.diverged.any():
            going = ~prediction.diverged
            self._flags = {name: flag & going for name, flag in self._flags.items()}
            terminated = terminated & going
        self._flags["diverged"] = prediction.diverged
        self.taken = parsed
        self._uncertainty = prediction.uncertainty
        truncated = prediction.diverged | outcome.out_of_bounds
        if self._doubts:
            cost, doubted = self.charge(prediction.uncertainty)
            rewards, truncated = rewards - cost, truncated | doubted
        return rewards, terminated, truncated

    def _stepped(self, actions: np.ndarray) -> tuple[Outcome, Prediction]:
        """A step of every row by the model's own verbs, and what is to be said of it."""
        before = self.predictor.shown
        prediction = self.predictor.step(actions)
        latent, shown = self.predictor.latent, self.predictor.shown
        return self._modality.judge(
            latent, before, shown, actions, self._named_params()
        ), prediction

    def _quick_rows(self) -> QuickRows | None:
        """What steps by machine code, made when it is first asked for; None where there is none."""
        native = self.native_step()
        if self._quick is None or self._quick[0] is not native:
            self._quick = native, None if native is None else QuickRows(self, native)
        return self._quick[1]

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_quick": None}  # addresses are of this process alone

    def charge(self, uncertainty: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Reward that an ensemble's disagreement (N,) costs, and which rows it ends."""
        return self.penalty * np.minimum(uncertainty, 1e6), uncertainty > self.uncertainty_limit

    def observe(self, rows: np.ndarray | None = None) -> Any:
        """Observations of `rows`, in the true env's form and bounds."""
        shown, params = self.predictor.shown, self._params
        if rows is None and self._quick is not None and self._quick[1] is not None:
            known = self._quick[1].observations(shown)
            if known is not None:
                return known
        if rows is not None:
            shown, params = shown[rows], params[rows]
        return self._modality.observe(shown, params)

    def first_info(self) -> dict[str, Any]:
        """`info` of rows that have just begun."""
        return self._info()

    def facts(self) -> dict[str, Any]:
        """What is known: of predicted states all that the true env tells, of pictures less."""
        params = self._named_params()
        told = dict(zip(params._fields, np.array(self._params.T, order="C"), strict=True))
        quick = None if self._quick is None else self._quick[1]
        known = None if quick is None else quick.facts(self.predictor.shown)
        info = {
            **(known or self._modality.facts(self.predictor.shown, params)),
            **({"params": told} if told else {}),
            **{name: flag.copy() for name, flag in self._flags.items()},
        }
        if self._doubts:
            info["uncertainty"] = self._uncertainty.copy()
        return info

    def render(self) -> tuple[np.ndarray, ...] | None:
        """A picture of what each row shows, with the action visible."""
        if self.render_mode is None:
            gymnasium.logger.warn('render() needs a render_mode: make the env with "rgb_array"')
            return None
        if not self._started:
            raise ResetNeeded("Call reset() before render(): there is no state to draw.")
        return tuple(self.portrait(row) for row in range(self.num_envs))

    def portrait(self, row: int) -> np.ndarray:
        """The picture (480, 480, 3) uint8 of one row."""
        params = self.params_of(row)
        moved = self.taken is not None and self.elapsed[row] > 0
        action = self.taken[row] if moved else None  # type: ignore[index]
        caption = f"t = {int(self.elapsed[row]) * self.dt:5.2f} s"
        return self._modality.portrait(self.predictor.shown[row], action, params, caption)


def resolve_model(
    model: WorldModel | str | Path | None, checkpoint: str | Path | None = None
) -> WorldModel:
    """The model itself, or the one in a run or checkpoint folder; exactly one must be given."""
    given = model if checkpoint is None else checkpoint
    if model is not None and checkpoint is not None:
        raise ValueError(f"checkpoint={checkpoint!r} beside a model: give one of them, not both")
    if given is None:
        raise ValueError("give a model or a run folder: checkpoint='outputs/.../newtonian'")
    if isinstance(given, WorldModel):
        return given
    if not isinstance(given, (str, Path)):
        raise ValueError(f"{given!r} is neither a WorldModel nor the path of a run folder")
    from worldmodels.storage.checkpoint import load

    return load(given)


def move(model: WorldModel, device: str | None) -> WorldModel:
    """`model` on `device`; CUDA that is not there means the CPU, with a warning.

    Raises ValueError for what is no device, or none that tensors can be kept on and read from.
    """
    if device is None:
        return model
    if str(device).partition(":")[0] == "cuda" and not torch.cuda.is_available():
        warnings.warn(
            f"device={device!r} is not available here: the model runs on the CPU.",
            RuntimeWarning,
            stacklevel=3,
        )
        device = "cpu"
    return model.to(checked_device(torch, device))


def check_uncertainty(
    model: WorldModel, penalty: Any, limit: Any = None
) -> tuple[float, float | None]:
    """Both as floats; ValueError for other than numbers, and where the model is no ensemble."""
    factor = truth.number_of("uncertainty_penalty", penalty, -np.inf)
    most = None if limit is None else truth.number_of("uncertainty_limit", limit, 0.0)
    if (factor or most is not None) and not knows_uncertainty(model):
        raise ValueError("uncertainty needs an ensemble: train with --model.ensemble 5")
    return factor, most


def modality_of(
    model: WorldModel, task: Any, factor: float, given: Mapping[str, Judge | None] | None = None
) -> Modality:
    """That of the model: pictures where its spec has an image size, a foreign env's observations, or states.

    ``given``: functions in place of what was learned of a foreign env's rewards and ends.
    """
    given = given or {}
    if model.spec.foreign and not model.spec.image_size:
        return ObservationModality(model, task, factor, **given)
    for name, function in given.items():
        if function is not None and model.spec.foreign:
            raise ValueError(
                f"{name}={function!r} is of observations, and this model sees pictures of {model.spec.env_name}: "
                "leave it out (rewards and ends are what was learned), or train a model of its observations"
            )
        if function is not None:
            raise ValueError(
                f"{name}={function!r} is of envs that are not of PhysGym, seen as observations: this one's "
                "are known, and reward= takes a function, too"
            )
    kind = PixelModality if model.spec.image_size else StateModality
    return kind(model, task, factor)


def _choose_starts(starts: str, dataset: Any, modality: Modality) -> Starts:
    if starts == "true":
        if dataset is not None:
            raise ValueError('dataset= is where starts="buffer" come from: give both, or neither')
        return modality.true_starts()
    if starts == "buffer":
        return modality.buffer_starts(dataset)
    raise ValueError(f'starts={starts!r} is neither "true" nor "buffer"')
