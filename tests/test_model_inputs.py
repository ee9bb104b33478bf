"""What is not a model's own input is refused by the shape or type it has, whatever the model."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from visual_cases import tiny_model

from worldmodels.configs.training import MODELS
from worldmodels.interface import Latent, Spec
from worldmodels.models.building import build

SPEC = Spec("pendulum", dt=0.05, angles=(0,), param_names=("mass", "length"))
STEERED = Spec("pendulum", dt=0.05, angles=(0,), action_kind="continuous", action_size=1)
B = 3


def models() -> dict[str, Any]:
    """A model of every kind: each structure, an ensemble, continuous actions, and pictures."""
    torch.manual_seed(0)
    made = {name: build(SPEC, name, MODELS[name](hidden=8)) for name in MODELS}
    made["ensemble"] = build(SPEC, "newtonian", MODELS["newtonian"](hidden=8, ensemble=2))
    made["steered"] = build(STEERED, "jump", MODELS["jump"](hidden=8))
    made["told"] = build(SPEC, "jump", MODELS["jump"](hidden=8, condition="params"))
    for predictor in ("spatial_newtonian", "flat_lstm"):
        made[predictor] = tiny_model(predictor)
    return {name: model.eval() for name, model in made.items()}


MADE = models()


def context_of(model: Any) -> torch.Tensor:
    """A sound context."""
    size = model.spec.image_size
    return torch.zeros(B, 2, size, size, 3) if size else torch.zeros(B, 1, model.spec.state_size)


def told(model: Any) -> torch.Tensor:
    """Sound parameters."""
    return torch.ones(B, len(model.spec.param_names))


def action_of(model: Any) -> torch.Tensor:
    """A sound action of every row."""
    if model.spec.action_kind == "discrete":
        return torch.zeros(B, dtype=torch.int64)
    return torch.zeros(B, model.spec.action_size)


@pytest.mark.parametrize("name", MADE)
def test_sound_inputs_are_taken(name: str) -> None:
    model = MADE[name]
    context = context_of(model)
    for sound in (context, context.double(), context[:0]):
        latent = model.encode(sound, told(model)[: len(sound)])
        after = model.step(latent, action_of(model)[: len(sound)])
        assert len(model.decode(after)) == len(sound)


@pytest.mark.parametrize("name", MADE)
def test_a_context_of_another_kind_is_refused(name: str) -> None:
    model, good = MADE[name], context_of(MADE[name])
    trailing = ", ".join(map(str, good.shape[2:]))
    wrong: list[Any] = [
        good[:, 0],
        good[0],
        good[..., :-1],
        torch.cat([good, good], -1),
        good[None],
        good[:, :0],
        good.bool(),
        good.to(torch.complex64),
        good.to(torch.int64),
        good.numpy(),
        good.tolist(),
        None,
    ]
    for context in wrong:
        with pytest.raises(ValueError, match="context") as caught:
            model.encode(context, told(model))
        text = str(caught.value)
        assert f"(B, L, {trailing})" in text or "too few" in text
        if isinstance(context, torch.Tensor) and "too few" not in text:
            assert str(tuple(context.shape)) in text or str(context.dtype) in text
        if isinstance(context, np.ndarray):
            assert "numpy.ndarray, not a torch.Tensor" in text


@pytest.mark.parametrize("name", MADE)
def test_an_action_of_another_kind_is_refused(name: str) -> None:
    model, good = MADE[name], action_of(MADE[name])
    latent = model.encode(context_of(model), told(model))
    wrong: list[Any] = [good[:1], good[:, None], torch.cat([good, good]), good[0], good.bool()]
    wrong += [good.numpy(), good.tolist(), None, 1]
    wrong += [good.float()] if model.spec.action_kind == "discrete" else [good[:, 0]]
    for action in wrong:
        with pytest.raises(ValueError, match=r"action .*is.* expected"):
            model.step(latent, action)


@pytest.mark.parametrize("name", MADE)
def test_a_latent_of_another_kind_is_refused(name: str) -> None:
    model = MADE[name]
    latent = model.encode(context_of(model), told(model))
    z = latent.z.detach()
    wrong: list[Any] = [Latent(x, latent.memory) for x in (z[..., :1], z[0], z.int(), z.numpy())]  # type: ignore[arg-type]
    for given in [*wrong, z, z.numpy(), None]:
        with pytest.raises(ValueError, match=r"latent.* expected"):
            model.step(given, action_of(model))
        with pytest.raises(ValueError, match=r"latent.* expected"):
            model.decode(given)


def test_parameters_of_another_kind_are_refused() -> None:
    model = MADE["told"]
    context = context_of(model)
    for params in (torch.ones(2), torch.ones(B, 1), torch.ones(1, 2), np.ones((B, 2)), {"mass": 1}):
        with pytest.raises(ValueError, match=r"params \(mass, length\) .*expected \(3, 2\)"):
            model.encode(context, params)


def test_actions_between_frames_are_one_fewer() -> None:
    model = MADE["spatial_newtonian"]
    good = torch.zeros(B, 1, dtype=torch.int64)
    model.encode(context_of(model), None, good)
    for actions in (good[:, 0], torch.zeros(B, 2, dtype=torch.int64), good.float(), good.numpy()):
        with pytest.raises(ValueError, match=r"actions .*expected \(3, 1\)"):
            model.encode(context_of(model), None, actions)
