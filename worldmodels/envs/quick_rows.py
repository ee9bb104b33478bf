"""The step of a learned vector env of states: the model's machine code, and the true env's verdict by one call more.

Few rows go through one call for both, in rooms that are made once; many through blocks, and then the verdict.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from worldmodels.envs.judging import Outcome, controls_of, finite_rewards
from worldmodels.envs.native_steps import FEW_ROWS, NativeBlocks, NativeStep
from worldmodels.envs.predictor import Prediction, finite
from worldmodels.envs.served import Judged, Served
from worldmodels.imagination import small_batch
from worldmodels.interface import Latent


class QuickRows:
    """The rows of a learned env of states.

    Args:
        rows: the `WorldModelVectorEnv`, whose first episodes have begun.
        native: the model's step.
    """

    def __init__(self, rows: Any, native: NativeStep | NativeBlocks) -> None:
        task, predictor = rows.task, rows.predictor
        self.native, self._task, self._predictor = native, task, predictor
        count, most = rows.num_envs, predictor.modality.most
        self._size, self._names = task.system.state_size, predictor.modality.flags[1:]
        self._shows = task.obs_mode in ("state", "embedded") and not task.observe_params
        self._index = np.arange(count)
        self._params: Any = None
        self._latent: Any = None
        self._block: Any = None
        self._shown: Any = None
        self._inside = False
        if isinstance(native, NativeStep):
            self._served: Judged = Served(native, predictor.latent, task, most)
            self._calls = self._served.bound(0), self._served.bound(1)
        else:
            self._served = Judged(task, count, native.dtype, most)

    def step(self, actions: np.ndarray, params: Any) -> tuple[Outcome, Prediction] | None:
        """Move the predictor's rows by parsed ``actions``, and judge them; ``params`` are columns (N,), the same object
        for as long as they are the same. None where the model is not what was compiled any more.
        """
        served, predictor = self._served, self._predictor
        if params is not self._params:
            self._take_params(params)
        if predictor.latent is not self._latent:
            self._take_over()
        self._push(actions, params)
        before = predictor.latent
        after = self._moved(before, actions)
        if after is None:
            return None
        size = self._size
        block = self._block = served.out.copy()
        told = block[size + 2 :] != 0.0
        lost = told[-2]
        if lost.any():
            _keep(lost, before, after)
        self._latent = predictor.latent = after
        self._shown = predictor.shown = block[:size].T
        events = dict(zip(self._names, told[1:], strict=False))
        terminated = told[1 : 1 + len(events)].any(axis=0)
        outcome = Outcome(finite_rewards(block[size]), terminated, told[0], events)
        self._inside = not told[0].any()
        return outcome, Prediction(lost, finite(block[-1]))

    def _take_params(self, params: Any) -> None:
        """Constants of the equations, and for few rows the controls that each discrete action stands for."""
        task, served = self._task, self._served
        for line, value in zip(served.constants, task.constants(params), strict=False):
            line[...] = value
        self._params = params
        if task.discrete and served.count <= FEW_ROWS:
            actions = range(task.system.action_count)
            each = (np.full(served.count, action) for action in actions)
            pushes = [np.broadcast_arrays(*controls_of(task, own, params)) for own in each]
            self._pushes = np.array(pushes, np.float64)  # (n, U, N)

    def _take_over(self) -> None:
        """Go on from what another hand has done: rows that began anew, or a step by torch."""
        predictor, served = self._predictor, self._served
        if isinstance(served, Served):
            served.adopt(predictor.latent, predictor.shown)
            predictor.latent = served.turns[0]
        else:
            served.states[:] = predictor.shown

    def _push(self, actions: np.ndarray, params: Any) -> None:
        served, task = self._served, self._task
        if isinstance(served, Served):
            served.action[...] = actions
            if task.discrete:
                served.control[...] = self._pushes[actions, :, self._index].T
                return
        for line, value in zip(served.control, controls_of(task, actions, params), strict=True):
            line[...] = value

    def _moved(self, before: Any, actions: np.ndarray) -> Any:
        """The latent after ``before``, judged; None where the model is not what was compiled any more."""
        served = self._served
        if isinstance(served, Served):
            turn = int(before is served.turns[1])
            return served.turns[1 - turn] if served.taken(self._calls[turn]) else None
        native: Any = self.native
        model, modality = self._predictor.model, self._predictor.modality
        with torch.inference_mode(), small_batch(model, served.count):
            after, shown, doubt = native(before, modality.actions(actions))
        served.judge(shown, doubt)
        return after

    def observations(self, shown: np.ndarray) -> np.ndarray | None:
        """Observations of what rows ``shown`` (N, D), fresh; None where they are not these, or to be clipped."""
        known = self._shows and self._inside and shown is self._shown
        return self._served.observed.copy() if known else None

    def facts(self, shown: np.ndarray) -> dict[str, Any] | None:
        """As `Modality.facts`; None where what rows show is not what was judged last."""
        if shown is not self._shown:
            return None
        return {"state": shown.copy(), "energy": self._block[self._size + 1].copy()}


def _keep(lost: np.ndarray, before: Latent, after: Latent) -> None:
    """Put rows that cannot be predicted back to where they were."""
    at = torch.as_tensor(lost)
    with torch.inference_mode():
        pairs = zip((after.z, *after.memory), (before.z, *before.memory), strict=True)
        for new, old in pairs:
            new[at] = old[at]
