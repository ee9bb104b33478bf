"""The verdict on rows of predicted states by one call of machine code: what the true env says of them, to the bit."""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
import pytest
import torch

from physgym.system import SYSTEMS
from physgym.task import Task
from worldmodels.envs.served import Judged
from worldmodels.native.places import Inventory, addresses, data_pointer, handles, table_of

pytest.importorskip("llvmlite")

ROWS = 7


def predicted(task: Task) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """States, levels of actions and parameters of some rows, among them what is no number and what is far away."""
    rng = np.random.default_rng(0)
    drawn = [task.sample(rng) for _ in range(ROWS)]
    states = np.array([state for state, _ in drawn])
    states[2] *= 40.0
    states[3, 0] = np.nan
    levels = task.system.discrete_actions[
        rng.integers(len(task.system.discrete_actions), size=ROWS)
    ]
    return states, levels, np.array([params for _, params in drawn])


@pytest.mark.parametrize("embedded", [False, True])
@pytest.mark.parametrize("name", SYSTEMS)
def test_rows_are_judged_as_the_true_env_judges_one(name: str, embedded: bool) -> None:
    task = Task(name, obs_mode="embedded" if embedded else "state", randomize=True)
    states, levels, params = predicted(task)
    size = states.shape[1]
    limit = np.full(size, 1e3)
    judged = Judged(task, ROWS, torch.float64, limit)
    before = judged.states[:] = predicted(task)[0][[0, 1, 4, 5, 6, 0, 1]]  # all of them sound
    columns = task.system.Params(*params.T)
    for line, value in zip(judged.constants, task.constants(columns), strict=False):
        line[...] = value
    controls: list[Any] = []
    for row, level in enumerate(levels.tolist()):
        controls.append(task.system.control_of(tuple(level), task.system.Params(*params[row])))
        judged.control[:, row] = controls[row]
    judged.judge(torch.from_numpy(states), torch.arange(ROWS, dtype=torch.float64))
    step = task.transition("floats")
    for row in range(ROWS):
        lost = not (np.abs(states[row]) <= limit).all()
        state = tuple((before if lost else states)[row].tolist())
        constants = task.constants(task.system.Params(*params[row].tolist()))
        told = step(state, controls[row], constants, 0.0, 0)
        wanted = [*told, *task.features(state), lost, row]
        np.testing.assert_array_equal(judged.out[:, row], np.array(wanted, np.float64))
        np.testing.assert_array_equal(judged.states[row], state)
        features = np.array(task.features(state), np.float32)
        np.testing.assert_array_equal(judged.observed[row], features)


def test_torch_can_be_asked_where_tensors_lie() -> None:
    """Else every step asks by Python, a quarter of a microsecond for each weight."""
    assert data_pointer() is not None or sys.platform != "linux"
    tensors = [torch.zeros(3), torch.ones(2, 2).double()[1]]
    assert list(handles(tensors)) == [tensor._cdata for tensor in tensors]
    assert list(table_of(tensors)) == addresses(tensors) == [x.data_ptr() for x in tensors]


def test_an_inventory_holds_until_a_part_is_replaced() -> None:
    module = torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.BatchNorm1d(3))
    inventory = Inventory(module)
    module[0].double()
    module.load_state_dict(module.state_dict())
    assert inventory.holds()
    kept: Any = module[0]
    module[0] = torch.nn.Linear(2, 3)
    assert not inventory.holds()
    module[0] = kept
    assert inventory.holds()
    module[1].running_mean = torch.ones(3)
    assert not inventory.holds()
