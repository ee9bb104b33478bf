"""`check_world_model`: every registered structure passes, and every fault is told by its verb, finding and fix."""

from __future__ import annotations

import pickle
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import pytest
import torch
from contributing import blocks
from model_doubles import Glow, Perfect, build_model, make_spec, small_model
from torch import Tensor, nn
from visual_cases import KEYPOINTS, VAES, tiny_config, tiny_model, tiny_spec

import worldmodels
from physgym import plugins
from worldmodels.checking.examples import examples
from worldmodels.checking.world_model import CHECKS, CheckError, check_world_model
from worldmodels.configs.training import MODELS, PREDICTORS, FlowConfig
from worldmodels.interface import Batch, Latent, Spec, WorldModel

NO_FLOW = ("jump", "lstm")


@contextmanager
def silence() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


# -- what passes ----------------------------------------------------------------------------------


@pytest.mark.parametrize("options", [{}, {"condition": "params", "objective": "shooting"}], ids=str)
@pytest.mark.parametrize("mode", ["discrete", "continuous"])
@pytest.mark.parametrize("name", MODELS)
def test_every_structure_passes_over_states(name: str, mode: str, options: Any) -> None:
    with silence():
        check_world_model(small_model(name, make_spec("pendulum", action_mode=mode), **options))


@pytest.mark.parametrize("name", MODELS)
def test_every_ensemble_passes(name: str) -> None:
    with silence():
        check_world_model(small_model(name, make_spec("three_body"), ensemble=2))


@pytest.mark.parametrize("predictor", [*VAES, *KEYPOINTS])
def test_every_predictor_passes_over_pictures(predictor: str) -> None:
    with silence():
        check_world_model(tiny_model(predictor))


@pytest.mark.parametrize(
    "model",
    [
        lambda: tiny_model("flat_jump", tiny_spec("continuous", 1), training_mode="detached"),
        lambda: tiny_model("spatial_lstm", refresh_steps=2),
        lambda: tiny_model("keypoint_lstm", tiny_spec("continuous", 1)),
        lambda: small_model("first_order", make_spec("pendulum"), integrator="dopri5"),
        lambda: small_model("jump", make_spec("pendulum"), dt_input=True),
        lambda: small_model(
            "port_hamiltonian", make_spec("pendulum"), mass="full", integrator="rk4"
        ),
        lambda: small_model("port_hamiltonian", make_spec("pendulum")).double(),
    ],
    ids=["detached", "refreshed", "remembered points", "adaptive", "dt input", "mass", "double"],
)
def test_so_do_other_ways_to_build_them(model: Callable[[], Any]) -> None:
    with silence():
        check_world_model(model())


def test_points_and_ensembles_pass_together() -> None:
    dynamics = replace(tiny_config("keypoint_newtonian").dynamics, ensemble=2)
    with silence():
        check_world_model(tiny_model("keypoint_newtonian", dynamics=dynamics))


@pytest.mark.parametrize("integrator", ["leapfrog", "yoshida4", "suzuki4", "rk4"])
@pytest.mark.parametrize("damping", [False, True])
def test_reversible_is_what_has_no_damping_and_a_symmetric_step(
    integrator: str, damping: bool
) -> None:
    model = small_model(
        "port_hamiltonian", make_spec("pendulum"), integrator=integrator, damping=damping
    )
    assert model.reversible == (not damping and integrator != "rk4")
    with silence():
        check_world_model(model)


@pytest.mark.parametrize("integrator", ["auto", "implicit_midpoint", "extended4", "rk4"])
@pytest.mark.parametrize("damping", [False, True])
def test_so_is_a_mass_that_depends_on_the_place(integrator: str, damping: bool) -> None:
    model = small_model(
        "port_hamiltonian",
        make_spec("acrobot"),
        mass="network",
        integrator=integrator,
        damping=damping,
    )
    assert model.reversible == (not damping and integrator in ("auto", "implicit_midpoint"))
    with silence():
        check_world_model(model)


def test_a_mass_that_depends_on_the_place_passes_told_together_and_in_pictures() -> None:
    spec = make_spec("cart_pole")
    for options in ({"condition": "params", "objective": "shooting"}, {"ensemble": 2}):
        with silence():
            check_world_model(small_model("port_hamiltonian", spec, mass="network", **options))
    for predictor in ("flat_hamiltonian", "keypoint_hamiltonian", "spatial_hamiltonian"):
        inner = replace(tiny_config(predictor).dynamics, mass="network", integrator="auto")
        with silence():
            check_world_model(tiny_model(predictor, dynamics=inner))


def test_a_model_of_pixels_says_the_same() -> None:
    for predictor in ("flat_hamiltonian", "keypoint_hamiltonian"):
        config = tiny_config(predictor)
        inner = replace(config.dynamics, damping=False, integrator="leapfrog")
        never = {} if predictor.startswith("keypoint") else {"refresh_steps": 0}
        model = tiny_model(predictor, dynamics=inner, **never)
        assert model.reversible
        with silence():
            check_world_model(model)
    assert not tiny_model("flat_hamiltonian", dynamics=inner, refresh_steps=2).reversible


def test_the_structure_of_the_guide_passes(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(plugins.VARIABLE, "[]")
    monkeypatch.setattr(plugins, "_loaded", {})
    count = len(plugins.JOURNAL)
    (tmp_path / "spring.py").write_text(blocks()["spring.py"])
    worldmodels.load_plugin(tmp_path / "spring.py")
    try:
        with silence():
            check_world_model(small_model("spring", make_spec("pendulum")))
            check_world_model(tiny_model("flat_spring"))
    finally:
        plugins._take_back(count)


def test_the_model_is_left_as_it_was() -> None:
    model = tiny_model("spatial_lstm")
    model.train()
    model.dynamics.eval()
    model.decoder.first.bias.grad = torch.ones_like(model.decoder.first.bias)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    torch.manual_seed(3)
    expected = torch.rand(())
    torch.manual_seed(3)
    check_world_model(model)
    assert torch.rand(()) == expected
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert model.training and not model.dynamics.training
    grads = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
    assert list(grads) == ["decoder.first.bias"] and grads["decoder.first.bias"].eq(1).all()


def test_inputs_lie_within_what_training_has_seen() -> None:
    model = small_model("jump", make_spec("spaceship"))
    model.reach.copy_(torch.tensor([2.0, 8.0, 0.5, 1e-3]))
    states = examples(model, 0).batch.states
    assert (states.abs().amax((0, 1)) <= 0.5 * model.reach).all()
    assert not torch.equal(states, examples(model, 1).batch.states)
    assert torch.equal(states, examples(model, 0).batch.states)


# -- what does not: a sound model of one's own, and one fault each ------------------------------------


class Sound(WorldModel):
    """z' = z + dt (A z + b(a)): as small as a model of one's own can be."""

    any_dt = True

    def __init__(self, spec: Spec) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.spec = spec
        self.flow = nn.Linear(spec.state_size, spec.state_size)
        self.push = nn.Embedding(spec.action_size, spec.state_size)

    def encode(self, context: Tensor, params: Tensor | None = None) -> Latent:
        return Latent(context[:, -1])

    def step(self, latent: Latent, action: Tensor, dt: Any = None) -> Latent:
        seconds = torch.as_tensor(self.spec.dt if dt is None else dt).reshape(-1, 1)
        return latent._replace(z=latent.z + seconds * self.rate(latent.z, action))

    def rate(self, z: Tensor, action: Tensor) -> Tensor:
        return self.flow(z) + self.push(action)

    def decode(self, latent: Latent) -> Tensor:
        return latent.z

    def loss(self, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        latent, total = self.encode(batch.states[:, :1]), torch.zeros(())
        for t in range(batch.mask.shape[1]):
            latent = self.step(latent, batch.actions[:, t])
            total = total + ((latent.z - batch.states[:, t + 1]) ** 2).mean()
        return total, {"loss": total.detach()}


SPEC = make_spec("pendulum")


def faulty(**verbs: Any) -> Any:
    """`Sound` with other verbs or attributes; functions get the model first."""
    return type("Mine", (Sound,), verbs)(SPEC)


def test_a_sound_model_of_ones_own_passes_but_cannot_be_loaded() -> None:
    with pytest.warns(UserWarning, match="no config builds this model") as told:
        check_world_model(Sound(SPEC))
    assert len(told) == 1


def stateful(self: Any, latent: Latent, action: Tensor, dt: Any = None) -> Latent:
    self.count = getattr(self, "count", 0) + 1
    return Sound.step(self, latent._replace(z=latent.z + 0.01 * self.count), action, dt)


def noisy(self: Any, latent: Latent, action: Tensor, dt: Any = None) -> Latent:
    generator = torch.Generator()
    generator.seed()
    moved = Sound.step(self, latent, action, dt)
    return moved._replace(z=moved.z + torch.randn(moved.z.shape, generator=generator))


def in_place(self: Any, latent: Latent, action: Tensor, dt: Any = None) -> Latent:
    latent.z.mul_(1.01)
    return Sound.step(self, latent, action, dt)


def in_place_dt(self: Any, latent: Latent, action: Tensor, dt: Any = None) -> Latent:
    moved = Sound.step(self, latent, action, dt)
    if isinstance(dt, Tensor):
        dt.mul_(0.5)
    return moved


def by_autograd(self: Any, latent: Latent, action: Tensor, dt: Any = None) -> Latent:
    z = latent.z.detach().clone().requires_grad_()
    (force,) = torch.autograd.grad((self.flow(z) ** 2).sum(), z, create_graph=True)
    seconds = torch.as_tensor(self.spec.dt if dt is None else dt).reshape(-1, 1)
    return latent._replace(z=latent.z + seconds * (force + self.push(action)))


def mixing(self: Any, z: Tensor, action: Tensor) -> Tensor:
    return Sound.rate(self, z - z.mean(0), action)


def told(self: Any, context: Tensor, params: Tensor | None = None) -> Latent:
    return Latent(context[:, -1], (), params)


def remembering(self: Any, context: Tensor, params: Tensor | None = None) -> Latent:
    return Latent(context[:, -1], (torch.zeros(len(context), 3),))


def forgetting(self: Any, latent: Latent, action: Tensor, dt: Any = None) -> Latent:
    moved = Sound.step(self, latent, action, dt)
    return moved._replace(memory=(torch.tanh(moved.z.repeat(1, 2)[:, :3]),))


def grad_free(self: Any, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
    value, logs = Sound.loss(self, batch)
    return value.detach(), logs


FAULTS: dict[str, tuple[dict[str, Any], str, str, str]] = {
    "no latent": ({"encode": lambda self, c, p=None: c[:, -1]}, "encode", "Mine.encode", "a Latent|Latent"),
    "batch last": (
        {"encode": lambda self, c, p=None: Latent(c[:, -1].T)}, "encode", "encode", "batch on axis 0",
    ),
    "not finite": (
        {"encode": lambda self, c, p=None: Latent((-c[:, -1].abs()).log())}, "encode", "encode", "NaN or infinite",
    ),
    "length": (
        {"encode": lambda self, c, p=None: Latent(c.flatten(1))}, "encode", "encode", "context of any length",
    ),
    "raises": ({"step": lambda self, z, a, dt=None: 1 / 0}, "step", "Mine.step", "ZeroDivisionError"),
    "tensor": ({"step": lambda self, z, a, dt=None: z.z}, "step", "step", r"latent\._replace"),
    "type": (
        {"step": lambda self, z, a, dt=None: z._replace(z=z.z.double())}, "step", "step", "is float64",
    ),
    "condition lost": (
        {"encode": told, "step": lambda self, z, a, dt=None: Latent(z.z)}, "step", "step", "condition is lost",
    ),
    "condition changed": (
        {"encode": told, "step": lambda self, z, a, dt=None: z._replace(condition=2 * z.condition)},
        "step", "step", "constant over a rollout",
    ),
    "memory grows": (
        {"step": lambda self, z, a, dt=None: z._replace(memory=(*z.memory, z.z))}, "step", "step", "1 came out",
    ),
    "size": ({"decode": lambda self, z: z.z[:, :1]}, "decode", "decode", r"floats \(3, 2\)"),
    "magnitude": ({"largest": lambda self, z: -z.z.abs().amax(1)}, "largest", "largest", "0 or more"),
    "energy": (
        {"has_energy": True, "energy": lambda self, z: z.z.sum()}, "energy", "energy", r"floats \(3,\)",
    ),
    "hidden state": ({"step": stateful}, "deterministic", "step", r"latent\.memory, not in self"),
    "noise": ({"step": noisy}, "deterministic", "step", "global generator"),
    "dt ignored": (
        {"step": lambda self, z, a, dt=None: Sound.step(self, z, a)}, "dt", "step", "half of dt leads to the same",
    ),
    "dt default": (
        {"step": lambda self, z, a, dt=None: Sound.step(self, z, a, 1.0 if dt is None else dt)},
        "dt", "step", "None means spec.dt",
    ),
    "dt by row": (
        {"step": lambda self, z, a, dt=None: Sound.step(self, z, a, None if dt is None else float(dt))},
        "dt", "step", r"float32 \(3,\)",
    ),
    "in place": ({"step": in_place}, "inputs", "step", "changed a tensor of its caller"),
    "dt in place": ({"step": in_place_dt}, "dt", "step", "changed the dt of its caller"),
    "autograd": ({"step": by_autograd}, "inference", "step", "inference_mode"),
    "rows": ({"rate": mixing}, "rows", "step", "BatchNorm"),
    "drift": (
        {"step": lambda self, z, a, dt=None: Sound.step(self, z._replace(z=1.01 * z.z), a, dt)},
        "zero_dt", "step", "multiplied by dt",
    ),
    "irreversible": ({"reversible": True}, "reversible", "step", "say reversible = False"),
    "memory dropped": ({"encode": remembering, "step": forgetting}, "memory", "step", "carried on"),
    "no loss": ({"loss": lambda self, batch: None}, "loss", "loss", "dict of detached scalars"),
    "vector loss": (
        {"loss": lambda self, batch: (self.flow.weight.sum(0), {})}, "loss", "loss", "Average over the batch",
    ),
    "detached loss": ({"loss": grad_free}, "loss", "loss", r"without \.detach"),
    "graph logged": (
        {"loss": lambda self, batch: (Sound.loss(self, batch)[0],) * 1 + ({"x": self.flow.weight.sum()},)},
        "loss", "loss", r"logs\['x'\] = value\.detach",
    ),
    "idle parameter": (
        {"loss": lambda self, batch: ((self.flow.weight**2).sum(), {})},
        "gradients", "loss", r"flow\.bias, push\.weight",
    ),
    "infinite gradient": (
        {"loss": lambda self, batch: (sum((p * 0.0).abs().sqrt().sum() for p in self.parameters()), {})},
        "gradients", "loss", "sqrt, norm, log",
    ),
}  # fmt: skip
"""Verbs that are wrong, and the check, the verb and the words that tell."""


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_every_fault_is_caught_by_its_check(fault: str) -> None:
    verbs, check, verb, words = FAULTS[fault]
    with pytest.raises(CheckError, match=words) as caught:
        check_world_model(faulty(**verbs))
    error = caught.value
    assert error.check == check and error.verb.endswith(verb)
    assert (
        error.verb in str(error)
        and "; expected " in str(error)
        and f"check {check!r}" in str(error)
    )
    assert str(pickle.loads(pickle.dumps(error))) == str(error)
    assert isinstance(error, AssertionError), "as check_env raises"


def test_every_check_is_broken_by_some_fault() -> None:
    caught = {check for _, check, _, _ in FAULTS.values()}
    assert set(CHECKS) - caught == {"outcomes", "imagine", "saving"}, "these have tests below"


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_a_check_can_be_left_out_by_its_name() -> None:
    model = faulty(rate=mixing)
    with pytest.raises(CheckError, match="BatchNorm"):
        check_world_model(model)
    check_world_model(model, skip=("rows",))
    check_world_model(model, skip="rows")
    with pytest.raises(ValueError, match="skip='row' is no check.*did you mean 'rows'"):
        check_world_model(model, skip=("row",))
    with pytest.raises(TypeError, match="did you mean 'skip'"):
        check_world_model(model, skipp=("rows",))  # type: ignore[call-arg]


@dataclass(frozen=True)
class HiddenConfig(FlowConfig):
    """A number that no checkpoint holds."""


def test_what_no_checkpoint_holds_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    count = len(plugins.JOURNAL)

    @worldmodels.register_structure("hidden_number", HiddenConfig)
    class Hidden(worldmodels.Dynamics):
        def __init__(self, config: Any, medium: Any) -> None:
            super().__init__(medium)
            self.config = config
            self.weight = nn.Parameter(torch.ones(medium.features))
            self.scale = torch.rand(())  # no parameter, and no buffer

        def step(self, latent: Latent, action: Tensor, dt: Any) -> Latent:
            return latent._replace(z=latent.z * self.weight * self.scale)

    try:
        torch.manual_seed(1)
        with pytest.raises(CheckError, match="register_buffer") as caught:
            check_world_model(small_hidden())
        assert caught.value.check == "saving" and "checkpoint" in str(caught.value)
    finally:
        plugins._take_back(count)


def small_hidden() -> Any:
    return build_model(SPEC, HiddenConfig(hidden=8))


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_models_that_no_config_builds_are_saved_by_their_state_dict() -> None:
    class Loose(Sound):
        def state_dict(self, *args: Any, **kwargs: Any) -> Any:
            return {
                k: v for k, v in super().state_dict(*args, **kwargs).items() if k != "flow.bias"
            }

        def load_state_dict(self, state: Any, strict: bool = True, assign: bool = False) -> Any:
            return super().load_state_dict(state, strict=False)

    with pytest.raises(CheckError, match="state_dict loaded into a copy") as caught:
        check_world_model(Loose(SPEC))
    assert caught.value.check == "saving"


def test_a_decoder_that_knows_where_it_is_is_told_by_imagine() -> None:
    class Eager(Sound):
        def decode(self, latent: Latent) -> Tensor:
            self.seen = getattr(self, "seen", 0) + 1
            return latent.z + self.seen

    with pytest.raises(CheckError, match="imagine") as caught:
        check_world_model(Eager(SPEC), skip=("deterministic", "decode", "inference", "rows"))
    assert caught.value.check == "imagine"


class Grey(Glow):
    """A model of pictures that has all its verbs, and its reward as float32."""

    def encode(self, context: Any, params: Any = None, actions: Any = None) -> Latent:
        latent = super().encode(context, params, actions)
        return latent._replace(memory=(latent.memory[0].float(),))


@pytest.mark.parametrize(
    ("change", "check", "words"),
    [
        ({"judge": lambda self, z, a: z.z[:, 0]}, "outcomes", "logit of termination"),
        ({"judge": lambda self, z, a: (z.z, z.z)}, "outcomes", r"floats \(3,\)"),
        ({"context_frames": 0}, "encode", "a count of frames"),
        ({"decode": lambda self, z: 2.0 + Glow.decode(self, z)}, "decode", r"in \[0, 1\]"),
        ({"decode": lambda self, z: Glow.decode(self, z).mT}, "decode", "channels last"),
    ],
)
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_faults_of_models_of_pixels(change: dict[str, Any], check: str, words: str) -> None:
    check_world_model(Grey(tiny_spec()))
    with pytest.raises(CheckError, match=words) as caught:
        check_world_model(type("Mine", (Grey,), change)(tiny_spec()))
    assert caught.value.check == check


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_a_model_of_pixels_needs_a_reach() -> None:
    model = Grey(tiny_spec())
    del model.reach
    with pytest.raises(CheckError, match="register_buffer"):
        check_world_model(model)


def test_points_are_checked_when_they_have_learned_to_see() -> None:
    blind = build_model(tiny_spec(), tiny_config("keypoint_jump"))
    with pytest.raises(CheckError, match=r"learned to see: worldmodels\.train"):
        check_world_model(blind)


@pytest.mark.parametrize("given", [None, nn.Linear(2, 2), "outputs/pendulum"], ids=str)
def test_what_is_no_model_is_told(given: Any) -> None:
    with pytest.raises(CheckError, match="no WorldModel.*build"):
        check_world_model(given)


def test_an_unfinished_model_is_told_of_its_spec() -> None:
    model = Sound(SPEC)
    model.spec = {"env_name": "pendulum"}  # type: ignore[assignment]
    with pytest.raises(CheckError, match=r"a worldmodels\.interface\.Spec"):
        check_world_model(model)


# -- what is merely unwise -----------------------------------------------------------------------------


def drawing(self: Any, latent: Latent, action: Tensor, dt: Any = None) -> Latent:
    seconds = torch.as_tensor(self.spec.dt if dt is None else dt).reshape(-1, 1)
    moved = Sound.step(self, latent, action, dt)
    return moved._replace(z=moved.z + 1e-3 * seconds * torch.randn(2))


@pytest.mark.parametrize(
    ("change", "skip", "words"),
    [
        ({"decode": lambda self, z: 2.0 * z.z}, (), "does not come back"),
        ({"step": drawing}, ("dt", "rows", "inference", "zero_dt", "imagine", "saving"), "on the seed"),
        ({"any_dt": False}, (), "any_dt is False"),
        ({"loss": lambda self, b: (sum((p * 0).sum() for p in self.parameters()), {})}, (), "is 0 throughout"),
    ],
)  # fmt: skip
def test_what_is_unwise_is_a_warning(change: dict[str, Any], skip: Any, words: str) -> None:
    with pytest.warns(UserWarning, match=words):
        check_world_model(faulty(**change), skip=skip)


def test_a_model_without_parameters_has_nothing_to_train() -> None:
    model = Perfect(make_spec("pendulum"))
    with pytest.raises(CheckError, match=r"float64 \(3,\)"):
        check_world_model(model)  # it promises any dt, and takes no dt by row
    with pytest.warns(UserWarning, match="nothing to train"):
        check_world_model(model, skip=("dt", "zero_dt"))


def test_it_is_a_public_name_and_knows_the_registry() -> None:
    assert worldmodels.check_world_model is check_world_model
    assert set(PREDICTORS) == {*VAES, *KEYPOINTS}
    assert all(check.__doc__ for check in CHECKS.values())
