"""Laws of the visual model, for every structure on either medium."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from model_doubles import build_model
from visual_cases import FOUND, SIDE, VAES, random_batch, tiny_config, tiny_model, tiny_spec

from worldmodels.configs.training import PREDICTORS, default_config, from_dict, to_dict
from worldmodels.configs.visual import halvings
from worldmodels.imagination import imagine
from worldmodels.interface import Batch, Latent, select
from worldmodels.models import objectives
from worldmodels.models.building import build
from worldmodels.models.objectives import divergence, sample
from worldmodels.storage.checkpoint import load, save_checkpoint

HAMILTONIAN = [name for name in PREDICTORS if name.endswith("hamiltonian")]
CONTINUOUS = tiny_spec("continuous", 2)


def read(model, batch: Batch) -> Latent:
    first = model.context_frames - 1
    frames = batch.frames[:, : first + 1]
    return model.encode(frames, batch.params, batch.actions[:, :first])


def rolled(model, batch: Batch):
    first = model.context_frames - 1
    return imagine(model, read(model, batch), batch.actions[:, first:])


@pytest.mark.parametrize("spec", [tiny_spec(), CONTINUOUS], ids=["discrete", "continuous"])
@pytest.mark.parametrize("predictor", PREDICTORS)
def test_every_predictor_has_the_four_verbs(predictor, spec):
    model = tiny_model(predictor, spec).eval()
    batch = random_batch(model)
    latent = read(model, batch)
    medium = {"spatial": (8, 4, 4), "flat": (8,), "keypoint": (2,)}[model.config.latent]
    assert latent.z.shape == (3, *medium)
    after = model.step(latent, batch.actions[:, -1])
    assert after.z.shape == latent.z.shape and not torch.equal(after.z, latent.z)
    picture = model.decode(after)
    assert picture.shape == (3, SIDE, SIDE, 3)
    assert picture.min() >= 0.0 and picture.max() <= 1.0
    reward, logit = model.judge(after, batch.actions[:, -1])
    assert reward.shape == logit.shape == (3,)
    assert rolled(model, batch).shape == (3, 4, SIDE, SIDE, 3)
    assert torch.isfinite(rolled(model, batch)).all()


@pytest.mark.parametrize("mode", ["hgn", "detached"])
@pytest.mark.parametrize("predictor", VAES)
def test_every_parameter_gets_a_gradient(predictor, mode):
    model = tiny_model(predictor, training_mode=mode)
    loss, logs = model.loss(random_batch(model))
    loss.backward()
    assert torch.isfinite(loss) and all(torch.isfinite(value) for value in logs.values())
    idle = [
        name
        for name, parameter in model.named_parameters()
        if parameter.grad is None or not parameter.grad.abs().sum() > 0
    ]
    assert idle == []


@pytest.mark.parametrize("predictor", PREDICTORS)
def test_rows_do_not_mix(predictor):
    model = tiny_model(predictor).double().eval()
    batch = random_batch(model)
    batch = batch._replace(frames=batch.frames.double() / 255.0)
    together = rolled(model, batch)
    for row in range(3):
        at = slice(row, row + 1)
        parts = {k: v[at] for k, v in batch._asdict().items() if isinstance(v, torch.Tensor)}
        alone = rolled(model, batch._replace(**parts))
        torch.testing.assert_close(together[at], alone, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("predictor", PREDICTORS)
def test_a_row_is_reset_alone(predictor):
    model = tiny_model(predictor).eval()
    batch = random_batch(model)
    fresh = read(model, batch)
    moved = model.step(fresh, batch.actions[:, -1])
    mixed = select(moved, torch.tensor([True, False, True]), fresh)
    assert torch.equal(mixed.z[1], fresh.z[1]) and torch.equal(mixed.z[0], moved.z[0])
    for now, start, later in zip(mixed.memory, fresh.memory, moved.memory, strict=True):
        assert torch.equal(now[1], start[1]) and torch.equal(now[2], later[2])


@pytest.mark.parametrize("predictor", PREDICTORS)
def test_a_checkpoint_gives_the_same_bits(predictor, tmp_path):
    model = tiny_model(predictor).eval()
    config = {
        "spec": model.spec.to_dict(),
        "model_name": "visual",
        "model": to_dict(model.config),
    }
    save_checkpoint(tmp_path / "best", config, model.state_dict())
    again, batch = load(tmp_path / "best"), random_batch(model)
    assert again.config == model.config and again.spec == model.spec
    assert torch.equal(rolled(again, batch), rolled(model, batch))


@pytest.mark.parametrize("size", ["tiny", "small", "base"])
@pytest.mark.parametrize("predictor", PREDICTORS)
def test_every_default_survives_json_and_builds(predictor, size):
    config = default_config("pendulum", "visual", predictor, size)
    assert from_dict(to_dict(config)) == config
    if config.model.latent == "keypoint":
        config = replace(config, model=replace(config.model, **FOUND))
    with torch.device("meta"):
        model = build(replace(tiny_spec(), image_size=64), "visual", to_dict(config.model))
    assert model.config == config.model


def test_shapes_are_those_of_the_table():
    """MODELS.md: 64-pixel frames to 32 x 8 x 8, of which 16 channels are drawn."""
    model = build_model(
        replace(tiny_spec(), image_size=64),
        default_config("pendulum", "visual", "spatial_hamiltonian", "base").model,
    )
    frames = torch.zeros(2, 2, 64, 64, 3, dtype=torch.uint8)
    mean, log_variance = model.posterior(frames)
    assert mean.shape == log_variance.shape == (2, 32, 8, 8)
    assert model.transform(mean).shape == (2, 32, 8, 8)
    assert len(model.encoder.halving) == 3 and len(model.encoder.deepening) == 5
    assert model.decoder.first.in_channels == 16 + 2  # and where it is
    assert model.config.dynamics.hidden == 64


@pytest.mark.parametrize("predictor", PREDICTORS)
def test_momenta_are_never_drawn(predictor):
    model = tiny_model(predictor).eval()
    latent = read(model, random_batch(model))
    q, p = latent.z.chunk(2, 1)
    other = latent._replace(z=torch.cat((q, p + torch.randn_like(p)), 1))
    assert torch.equal(model.decode(other), model.decode(latent))
    shifted = latent._replace(z=torch.cat((q + 1.0, p), 1))
    assert not torch.equal(model.decode(shifted), model.decode(latent))


@pytest.mark.parametrize("predictor", [n for n in PREDICTORS if n.endswith(("nian",))])
def test_without_momentum_nothing_moves_at_first(predictor):
    """Positions change by momenta alone: h p to first order, and nothing of order h without."""
    model = tiny_model(predictor).double().eval()
    batch = random_batch(model)
    latent = read(model, batch._replace(frames=batch.frames.double() / 255.0))
    q, p = latent.z.chunk(2, 1)
    still = latent._replace(z=torch.cat((q, torch.zeros_like(p)), 1))
    action = batch.actions[:, -1]
    moves = [
        float((model.step(still, action, dt).z.chunk(2, 1)[0] - q).norm().detach())
        for dt in (0.05, 0.025, 0.0125)
    ]
    assert moves[0] / moves[1] == pytest.approx(4.0, rel=0.2)
    assert moves[1] / moves[2] == pytest.approx(4.0, rel=0.1)


@pytest.mark.parametrize("predictor", HAMILTONIAN)
def test_the_force_is_minus_the_gradient_of_the_energy(predictor):
    """grad H against finite differences, float64; and what training differentiates through it."""
    model = tiny_model(predictor).double().eval()
    batch = random_batch(model, 2)
    latent = read(model, batch._replace(frames=batch.frames.double() / 255.0))
    slope = model.dynamics.gradient(latent.z)
    generator = torch.Generator().manual_seed(0)
    for _ in range(5):
        way = torch.randn(latent.z.shape, generator=generator, dtype=torch.float64)
        ahead, behind = (latent._replace(z=latent.z + sign * 1e-5 * way) for sign in (1, -1))
        measured = (model.energy(ahead) - model.energy(behind)) / 2e-5
        claimed = (slope * way).flatten(1).sum(1)
        torch.testing.assert_close(claimed, measured, rtol=1e-6, atol=1e-8)
    z = latent.z.detach().clone().requires_grad_()
    weights = list(model.dynamics.potential.parameters())
    (value,) = torch.autograd.grad(model.dynamics.gradient(z).pow(2).sum(), weights[0])
    weight = weights[0]
    with torch.no_grad():
        way = torch.randn(weight.shape, generator=generator, dtype=torch.float64)
        before = weight.clone()
        sums = []
        for sign in (1.0, -1.0):
            weight.copy_(before + sign * 1e-6 * way)
            sums.append(model.dynamics.gradient(z).pow(2).sum())
        weight.copy_(before)
    measured = (sums[0] - sums[1]) / 2e-6
    torch.testing.assert_close((value * way).sum(), measured, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("predictor", HAMILTONIAN)
def test_leapfrog_keeps_the_energy_to_second_order(predictor):
    """Along the model's own unforced, undamped rollout over one time, at three step lengths."""
    model = tiny_model(predictor).double().eval()
    model.dynamics.config = replace(model.dynamics.config, integrator="leapfrog")
    batch = random_batch(model)
    start = read(model, batch._replace(frames=batch.frames.double() / 255.0))
    drifts = []
    for steps in (40, 80, 160):
        latent, energies = start, [model.energy(start)]
        for _ in range(steps):
            latent = model.conserve(latent, 2.0 / steps)
            energies.append(model.energy(latent))
        drifts.append(float((torch.stack(energies) - energies[0]).abs().max().detach()))
    assert drifts[0] / drifts[1] == pytest.approx(4.0, rel=0.15)
    assert drifts[1] / drifts[2] == pytest.approx(4.0, rel=0.1)


@pytest.mark.parametrize("kind", ["discrete", "continuous"])
@pytest.mark.parametrize("predictor", HAMILTONIAN)
def test_doing_nothing_feeds_no_energy(predictor, kind):
    """H of an idle latent only falls, by R; that of a driven one may rise."""
    spec = tiny_spec() if kind == "discrete" else tiny_spec("continuous", 1)
    model = tiny_model(predictor, spec).double().eval()
    batch = random_batch(model)
    latent = read(model, batch._replace(frames=batch.frames.double() / 255.0))
    idle = torch.full((3,), 1) if kind == "discrete" else torch.zeros(3, 1)
    damping = model.dynamics.config
    free = replace(damping, damping=False)
    model.dynamics.config = free
    torch.testing.assert_close(model.step(latent, idle).z, model.conserve(latent).z)
    pushed = torch.full((3,), 2) if kind == "discrete" else torch.ones(3, 1)
    assert not torch.allclose(model.step(latent, pushed).z, model.conserve(latent).z)
    model.dynamics.config = damping
    one = model.step(latent, idle)
    assert (model.energy(one) < model.energy(model.conserve(latent))).all()


def test_a_prediction_does_not_need_gradients():
    model = tiny_model("spatial_hamiltonian").eval()
    batch = random_batch(model)
    expected = rolled(model, batch)
    with torch.no_grad():
        assert torch.equal(rolled(model, batch), expected)
    with torch.inference_mode():
        assert torch.equal(rolled(model, batch), expected)


def test_memory_is_warmed_up_on_the_frames_before():
    model = tiny_model("spatial_lstm", context_frames=4).eval()
    batch = random_batch(model)
    latent = read(model, batch)
    assert all(tensor.abs().sum() > 0 for tensor in latent.memory)
    other = batch._replace(frames=batch.frames.clone())
    other.frames[:, 0] = 0
    assert not torch.equal(read(model, other).memory[0], latent.memory[0])
    with pytest.raises(ValueError, match=r"4 frames warms up a memory: pass the actions \(B, 3\)"):
        model.encode(batch.frames[:, :4])


def test_the_encoder_is_told_the_actions_between_its_frames():
    model = tiny_model("spatial_jump").eval()
    batch = random_batch(model)
    frames = batch.frames[:, :2]
    told = [model.encode(frames, None, torch.full((3, 1), a)).z for a in (0, 2)]
    unknown = model.encode(frames).z
    assert not torch.equal(told[0], told[1]) and not torch.equal(unknown, told[0])
    deaf = tiny_model("spatial_jump", encoder_actions=False).eval()
    assert torch.equal(deaf.encode(frames).z, deaf.encode(frames, None, batch.actions[:, :1]).z)


def test_a_part_of_the_frames_is_drawn_without_bias():
    """The error of a random subset is on average that of all frames."""
    model = tiny_model("spatial_jump", decoded_frames=2).eval()
    states = torch.randn(6, 5, 8, 4, 4)
    frames = torch.randint(0, 256, (6, 5, SIDE, SIDE, 3), dtype=torch.uint8)
    valid = torch.ones(6, 5, dtype=torch.bool)
    with torch.no_grad():
        some = [objectives.picture_error(model, states, frames, valid) for _ in range(300)]
        model.config = replace(model.config, decoded_frames=0)
        every = objectives.picture_error(model, states, frames, valid)
    assert torch.stack(some).mean() == pytest.approx(float(every), rel=0.02)
    assert torch.stack(some).std() > 0


def test_frames_behind_the_end_of_an_episode_carry_no_weight():
    model = tiny_model("spatial_jump", decoded_frames=0).eval()
    batch = random_batch(model)
    batch.mask[:, 3:] = False
    torch.manual_seed(0)
    before = model.loss(batch)[0]
    batch.frames[:, 4:] = 0
    batch.rewards[:, 3:] = 99.0
    torch.manual_seed(0)
    assert torch.equal(model.loss(batch)[0], before)


def test_a_pushed_rollout_starts_from_what_was_imagined(monkeypatch):
    """It is the loss of the later frames from the model's own latent, and does not reach the encoder."""
    model = tiny_model("spatial_newtonian", decoded_frames=0, beta=0.0, head_weight=0.0).eval()
    batch = random_batch(model, steps=7)
    monkeypatch.setattr(objectives, "pushed", lambda most: most)
    model.transform.forward = lambda z: torch.zeros_like(z) + 0.1  # no noise of the sample
    loss, _ = model.loss(batch)
    start = read(model, batch)
    for t in range(1, 4):
        start = model.step(start, batch.actions[:, t])
    states = objectives.rollout(model, start, batch.actions[:, 4:])
    expected = objectives.picture_error(
        model, states, batch.frames[:, 4:], torch.ones(3, 5, dtype=bool)
    )
    torch.testing.assert_close(loss, expected)
    model.zero_grad()
    loss.backward()
    assert all(p.grad is None or not p.grad.any() for p in model.encoder.parameters())
    assert any(p.grad.any() for p in model.dynamics.parameters())


def test_half_of_the_batches_are_pushed_by_any_number_of_steps():
    pushed = [objectives.pushed(5) for _ in range(2000)]
    assert 0.45 < pushed.count(0) / 2000 < 0.55 and set(pushed) == set(range(6))
    assert {objectives.pushed(0) for _ in range(20)} == {0}


@pytest.mark.parametrize("predictor", ["spatial_jump", "flat_lstm"])
def test_consistency_measures_a_rollout_by_what_is_read_later(predictor):
    model = tiny_model(predictor, consistency_weight=1.0, decoded_frames=0).eval()
    batch, first = random_batch(model, steps=5), model.context_frames - 1
    frames = batch.frames.unfold(1, 2, 1).movedim(-1, 2)[:, first - 1 :]
    readings = [
        model.transform(
            model.posterior(frames[:, k], batch.actions[:, first - 1 + k : first + k])[0]
        )
        for k in range(frames.shape[1])
    ]
    states = torch.stack(readings, 1).detach()
    apart, redrawn = objectives.consistency(model, states, batch, first)
    assert apart.item() < 1e-10 and redrawn.item() > 0.0
    shifted = (states + 0.1).requires_grad_()
    apart, redrawn = objectives.consistency(model, shifted, batch, first)
    assert apart.item() > 1e-4
    apart.backward(retain_graph=True)
    assert shifted.grad[:, 1:].abs().min() > 0.0 and not shifted.grad[:, 0].any()
    assert all(parameter.grad is None for parameter in model.parameters())  # targets do not move
    redrawn.backward()
    assert any(parameter.grad is not None for parameter in model.encoder.parameters())


def test_consistency_is_part_of_the_loss_and_of_the_log():
    plain, model = tiny_model(), tiny_model(consistency_weight=0.5)
    model.load_state_dict(plain.state_dict())
    batch = random_batch(model)
    losses = []
    for each in (plain, model):
        torch.manual_seed(3)
        losses.append(each.loss(batch))
    assert "consistency" not in losses[0][1]
    assert losses[1][0] > losses[0][0] + 0.5 * losses[1][1]["consistency"]


def test_the_kl_divergence_is_that_of_normal_distributions():
    mean, log_variance = torch.randn(4, 6), torch.randn(4, 6)
    theirs = torch.distributions.kl_divergence(
        torch.distributions.Normal(mean, (0.5 * log_variance).exp()),
        torch.distributions.Normal(0.0, 1.0),
    )
    torch.testing.assert_close(divergence(mean, log_variance), theirs.sum(1).mean())
    floored = theirs.clamp(min=0.7).sum(1).mean()
    torch.testing.assert_close(divergence(mean, log_variance, 0.7), floored)
    draws = sample(mean.expand(20000, 4, 6), log_variance.expand(20000, 4, 6))
    torch.testing.assert_close(draws.mean(0), mean, atol=0.06, rtol=0.0)


def test_detached_prediction_leaves_the_encoder_alone():
    """In detached mode the structure's error reaches the structure only."""
    model = tiny_model("spatial_newtonian", training_mode="detached")
    batch = random_batch(model)
    gradients = []
    for weight in (0.0, 5.0):
        model.config = replace(model.config, predictor_weight=weight)
        model.zero_grad()
        torch.manual_seed(0)
        model.loss(batch)[0].backward()
        gradients.append({n: p.grad for n, p in model.named_parameters() if "dynamics" not in n})
        moved = [p.grad is not None for p in model.dynamics.parameters()]
        assert all(moved) == bool(weight)
    for name, gradient in gradients[0].items():
        torch.testing.assert_close(gradient, gradients[1][name], msg=name)


@pytest.mark.parametrize("told", [False, True])
def test_heads_only_read_the_latent_unless_told(told):
    model = tiny_model("spatial_jump", head_gradient=told, beta=0.0)
    model.draw = lambda z: torch.zeros(len(z), 3, SIDE, SIDE)  # no error of pictures
    model.loss(random_batch(model))[0].backward()
    felt = any(p.grad is not None and p.grad.any() for p in model.encoder.parameters())
    assert felt == told


def test_parameters_are_an_input_where_asked():
    spec = tiny_spec(param_names=("mass", "length"))
    config = tiny_config("spatial_hamiltonian")
    config = replace(config, dynamics=replace(config.dynamics, condition="params"))
    model = build_model(spec, config)
    batch = random_batch(model)
    one = rolled(model, batch)
    two = rolled(model, batch._replace(params=batch.params + 1.0))
    assert not torch.equal(one, two)
    with pytest.raises(ValueError, match=r"pass params \(B, P\) of mass, length"):
        model.encode(batch.frames[:, :2])


@pytest.mark.parametrize(
    ("size", "spatial", "words"),
    [
        (60, 8, r"image_size=60 is not valid for spatial_size=8.*16, 32, 64"),
        (65, 8, "image_size=65"),
        (8, 8, "image_size=8"),
        (0, 8, "image_size=0"),
    ],
)
def test_odd_image_sizes_are_refused(size, spatial, words):
    with pytest.raises(ValueError, match=words):
        halvings(size, spatial)
    with pytest.raises(ValueError, match=words):
        build_model(
            replace(tiny_spec(), image_size=size), tiny_config()
        ) if spatial == 4 else build_model(
            replace(tiny_spec(), image_size=size), replace(tiny_config(), spatial_size=8)
        )


def test_an_odd_image_size_is_refused_before_anything_is_collected():
    config = default_config("pendulum", "visual", "spatial_jump", "tiny")
    with pytest.raises(ValueError, match="image_size=50 is not valid for spatial_size=8"):
        replace(config, data=replace(config.data, image_size=50))
    replace(config, data=replace(config.data, image_size=50), dataset="named")  # has its own size


def test_bad_frames_are_refused():
    model = tiny_model()
    good = torch.zeros(2, 2, SIDE, SIDE, 3)
    cases = [
        (good[:, :1], r"context has 1 frames, too few: this model reads the last 2"),
        (good[..., 0], r"context of shape \(2, 2, 16, 16\) is not valid"),
        (good[:, :, :8], r"expected frames \(B, L, 16, 16, 3\)"),
        (torch.full_like(good, float("nan")), "frames that are not finite"),
    ]
    for frames, words in cases:
        with pytest.raises(ValueError, match=words):
            model.encode(frames)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"predictor": "spatial_hamiltonia"}, "did you mean 'spatial_hamiltonian'"),
        ({"encoder_frames": 1}, "model.encoder_frames=1"),
        ({"context_frames": 1}, "model.context_frames=1"),
        ({"latent_channels": 7}, "an even number"),
        ({"beta": -1.0}, "model.beta=-1.0"),
        ({"beta": float("nan")}, "model.beta"),
        ({"size": "huge"}, "one of tiny, small, base"),
        ({"dynamics": {"ensemble": 3}}, "an option of models over states"),
        ({"dynamics": {"rollout_steps": 3}}, "use model.rollout_steps"),
        ({"dynamics": {"integrator": "verlet"}}, "model.integrator='verlet'"),
        ({"width": 0}, "model.width=0"),
        ({"training_mode": "both"}, "training_mode"),
    ],
)
def test_bad_options_are_refused(options, words):
    saved = to_dict(default_config("pendulum", "visual", "spatial_hamiltonian", "tiny"))
    saved["model"] = {"predictor": "spatial_hamiltonian", "size": "tiny", **options}
    with pytest.raises(ValueError, match=words):
        from_dict(saved)


def test_a_batch_without_frames_is_refused():
    model = tiny_model()
    with pytest.raises(ValueError, match="no frames: train on a buffer collected with --pixels"):
        model.loss(random_batch(model)._replace(frames=None))


@pytest.mark.parametrize("predictor", ["spatial_jump", "flat_hamiltonian", "spatial_lstm"])
def test_a_rollout_reads_its_own_pictures_again_when_it_is_due(predictor):
    plain = tiny_model(predictor).eval()
    model = tiny_model(predictor, refresh_steps=3).eval()
    model.load_state_dict(plain.state_dict())
    batch = random_batch(model, steps=6)
    actions = batch.actions[:, model.context_frames - 1 :]
    mine, other = read(model, batch), read(plain, batch)
    for t in range(3):
        before, mine = mine, model.step(mine, actions[:, t])
        other = plain.step(other, actions[:, t])
        assert torch.equal(mine.z, other.z) == (t < 2)
    pair = torch.stack([model.decode(before), model.decode(other)], 1)
    read_anew = model.encode(pair, batch.params, actions[:, 2:3])
    torch.testing.assert_close(mine.z, read_anew.z)
    assert mine.memory[-1].tolist() == [0.0] * 3
    reset = select(mine, torch.tensor([True, False, True]), before)
    after = model.step(reset, actions[:, 3])  # row 1 is due now, the others are not
    assert after.memory[-1].tolist() == [1.0, 0.0, 1.0]
    with pytest.raises(ValueError, match="0 in detached mode"):
        tiny_config(predictor, consistency_weight=0.3, training_mode="detached")
    with pytest.raises(ValueError, match="encoder_frames=2 only"):
        tiny_config(predictor, refresh_steps=3, encoder_frames=3, context_frames=3)
