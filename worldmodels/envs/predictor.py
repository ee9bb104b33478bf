"""Rows of one world model, stepped together: the part of a learned env that holds the latents.

A row that cannot be predicted further (not finite, far outside the training range, or the model
raised) is reported as diverged and stays where it was; the other rows go on. Beside it: how far an
ensemble may disagree before it is better not trusted.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from worldmodels.configs.keywords import known_keywords
from worldmodels.envs.modality import Decoded, Modality
from worldmodels.envs.native_steps import NativeBlocks, NativeStep
from worldmodels.envs.starts import Start
from worldmodels.imagination import map_tensors, small_batch, step_rows
from worldmodels.interface import DivergenceError, WorldModel

DIVERGENCES = (AssertionError, ArithmeticError, RuntimeError, ValueError)
"""What a model may raise where it cannot go on: solvers of others report by AssertionError, torch by
RuntimeError."""


class Prediction(NamedTuple):
    """One step of every row."""

    diverged: np.ndarray
    """(N,) bool."""
    uncertainty: np.ndarray
    """(N,) float64 disagreement of an ensemble; 0 for a single model."""


class Predictor:
    """N latents of a model, each with what it shows.

    Args:
        modality: holds the model, which is put into eval mode; every step runs under
            `torch.inference_mode`, and decodes all rows once.
        num_rows: N.
        dt: seconds a step.

    Attributes:
        latent: the model's, of N rows; None before the first start.
        shown: (N, ...) what each row shows, by the modality; of diverged rows the last good one.

    Raises:
        ValueError: the model's verbs do not fit its spec.
    """

    def __init__(self, modality: Modality, num_rows: int, dt: float) -> None:
        self.modality, self.model = modality, modality.model.eval()
        self.num_rows, self.dt = num_rows, dt
        self.shown: np.ndarray = np.zeros((num_rows, *modality.shape), dtype=modality.dtype)
        self.latent: Any = None
        self._warned = False
        self._native: tuple[NativeStep | NativeBlocks | None] | None = None
        self._probe()

    def start(self, rows: np.ndarray, starts: Sequence[Start], params: np.ndarray) -> None:
        """Encode K `starts` with `params` (K, P) into `rows` (K,), memory included."""
        context = np.stack([start.context for start in starts])
        actions = np.stack([start.actions for start in starts])
        with torch.inference_mode(), small_batch(self.model, len(rows)):
            fresh = self.modality.encode(context, actions, params)
            if len(rows) == self.num_rows and (rows[:-1] < rows[1:]).all():
                self.latent = fresh  # all of them, in order
            elif self.latent is None:
                index = np.zeros(self.num_rows, dtype=np.int64)
                index[rows] = np.arange(len(rows))
                self.latent = map_tensors(lambda new: new[self._index(index)], fresh)
            else:
                at = self._index(rows)
                self.latent = map_tensors(lambda old, new: _put(old, at, new), self.latent, fresh)
        self.shown = self.shown.copy()
        self.shown[rows] = context[:, -1]
        known = self._native and self._native[0]
        if known and not known.inventory.holds():
            self._native = None

    def step(self, actions: np.ndarray) -> Prediction:
        """Move every row one control step under `actions` (N,) int64 or (N, A)."""
        if self.model.training:
            self.model.eval()
        with torch.inference_mode(), small_batch(self.model, self.num_rows):
            latent, shown, diverged, uncertainty = self._advance(self.modality.actions(actions))
            if diverged.any():
                known = ~diverged.reshape(-1, *[1] * (shown.ndim - 1))
                shown = np.where(known, shown, self.shown)
                keep = torch.as_tensor(~diverged, device=self.modality.device)
                latent = map_tensors(lambda new, old: _choose(keep, new, old), latent, self.latent)
        self.latent, self.shown = latent, shown
        return Prediction(diverged, uncertainty)

    def _advance(self, actions: Tensor) -> tuple[Any, np.ndarray, np.ndarray, np.ndarray]:
        """Latents after ``actions``, what they show, which rows cannot be predicted, and how uncertain they are."""
        native = self.native_step()
        if native is not None:
            latent, decoded, doubt = native(self.latent, actions)
            shown, sound = self.modality.shown(decoded)
            return latent, shown, ~sound, finite_doubt(doubt, self.num_rows)
        latent, lost, error = step_rows(self.model.step, self.latent, actions, self.dt, DIVERGENCES)
        if error is not None:
            self._warn(error)
        shown, sound = self._decode(latent)
        uncertainty = uncertainty_of(self.model, latent, self.num_rows)
        return latent, shown, lost | ~sound, uncertainty

    def native_step(self) -> NativeStep | NativeBlocks | None:
        """Machine code, made when it is first asked for; None where there is none."""
        if self._native is None:
            wide = (
                () if self.model.spec.action_kind == "discrete" else (self.model.spec.action_size,)
            )
            idle = self.modality.actions(np.zeros((self.num_rows, *wide), dtype=np.int64))
            self._native = (self.modality.native(self.latent, idle, self.dt),)
        (native,) = self._native
        return native if native is not None and native.fits(self.latent) else None

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_native": None}  # addresses are of this process alone

    def _decode(self, latent: Any) -> Decoded:
        try:
            return self.modality.decode(latent)
        except DIVERGENCES as error:
            self._warn(error)
            return Decoded(self.shown.copy(), np.zeros(self.num_rows, dtype=np.bool_))

    def _index(self, rows: np.ndarray) -> Tensor:
        return torch.as_tensor(rows, device=self.modality.device)

    def _probe(self) -> None:
        """Two rows through the verbs, so that a misfit shows here and not as divergence."""
        modality, spec = self.modality, self.model.spec
        wide = () if spec.action_kind == "discrete" else (spec.action_size,)
        context: np.ndarray = np.zeros((2, modality.length, *modality.shape), modality.dtype)
        past = np.zeros((2, modality.length - 1, *wide), dtype=np.int64)
        actions, params = np.zeros((2, *wide), dtype=np.int64), modality.task.base
        try:
            with torch.inference_mode():
                latent = modality.encode(context, past, np.ones((2, len(spec.param_names))))
                decoded = self.model.decode(latent)
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")
                    self.model.step(latent, modality.actions(actions), self.dt)
                modality.judge(latent, context[:, -1], context[:, -1], actions, params)
        except DIVERGENCES as error:
            if isinstance(error, (DivergenceError, ArithmeticError, AssertionError)):
                return
            if modality.float_type is not torch.float32:
                raise ValueError(
                    f"the model cannot be stepped in {modality.float_type} ({error}): "
                    "use it in float32, model.float()"
                ) from error
            raise ValueError(f"the model does not fit its spec {spec}: {error}") from error
        wanted = (2, *modality.shape)
        if decoded.shape != wanted:
            raise ValueError(f"the model decodes to {tuple(decoded.shape)}, its spec says {wanted}")

    def _warn(self, error: BaseException) -> None:
        if not self._warned:
            message = (
                f"The model raised {type(error).__name__} ({error}); its rows end as diverged."
            )
            warnings.warn(message, RuntimeWarning, stacklevel=2)
        self._warned = True


def knows_uncertainty(model: WorldModel) -> bool:
    """Whether `model` can say how far its members disagree."""
    return hasattr(model, "disagreement")


def uncertainty_of(model: WorldModel, latent: Any, rows: int) -> np.ndarray:
    """How far an ensemble's members disagree in `latent` (rows,) float64; 0 for a single model."""
    if not knows_uncertainty(model):
        return np.zeros(rows)
    disagreement: Any = model.disagreement
    return finite_doubt(disagreement(latent), rows)


def finite_doubt(doubt: Tensor | None, rows: int) -> np.ndarray:
    """A disagreement (rows,) in float64, infinite where it is no number; None: 0."""
    return np.zeros(rows) if doubt is None else finite(doubt.double().cpu().numpy())


def finite(doubt: np.ndarray) -> np.ndarray:
    """A disagreement (N,), infinite where it is no number."""
    return doubt if np.isfinite(doubt).all() else np.nan_to_num(doubt, nan=np.inf)


@known_keywords
def calibrate_uncertainty(
    model: WorldModel, dataset: Any, quantile: float = 0.99, split: str = "val"
) -> float:
    """The uncertainty that open-loop rollouts of a buffer's episodes stay below at `quantile`.

    Use it as `uncertainty_limit` of a learned env: episodes as long and as far afield as the
    buffer's are then rarely cut short, others are.

    Args:
        model: an ensemble.
        dataset: `worldmodels.data.Dataset`; the episodes of `split` are rolled out from their
            first states under their own actions.
        quantile: share of the steps that lie below, in (0, 1].

    Raises:
        ValueError: the model is no ensemble, there is no such episode, a bad quantile.
    """
    if not knows_uncertainty(model):
        raise ValueError("the model has one member only: train with --model.ensemble 5")
    if not 0.0 < quantile <= 1.0:
        raise ValueError(f"quantile={quantile!r} must lie in (0, 1]")
    episodes = np.asarray(dataset.splits.get(split, []), dtype=np.int64)
    lengths = np.asarray(dataset.lengths)[episodes]
    if not len(episodes) or not lengths.any():
        raise ValueError(f"the buffer has no steps in its split {split!r} to calibrate on")
    first = next(model.parameters())
    starts = torch.as_tensor(dataset.states[episodes, :1], dtype=first.dtype, device=first.device)
    told = [dataset.params[name][episodes] for name in model.spec.param_names]
    params = torch.as_tensor(np.stack(told, 1), dtype=first.dtype, device=first.device)
    actions = torch.as_tensor(dataset.actions[episodes], device=first.device)
    seen: list[np.ndarray] = []
    disagreement: Any = model.disagreement
    with torch.inference_mode():
        latent = model.eval().encode(starts, params)
        for t in range(int(lengths.max())):
            latent = model.step(latent, actions[:, t])
            seen.append(disagreement(latent).double().cpu().numpy()[t < lengths])
    return float(np.quantile(np.nan_to_num(np.concatenate(seen), nan=np.inf), quantile))


def _put(old: Tensor, at: Any, new: Tensor) -> Tensor:
    result = old.clone()
    result[at] = new
    return result


def _choose(keep: Tensor, new: Tensor, old: Tensor) -> Tensor:
    return torch.where(keep.reshape(-1, *[1] * (new.ndim - 1)), new, old)
