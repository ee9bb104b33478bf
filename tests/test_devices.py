"""Where trainings run, and that what makes them quick does not change what they learn."""

from __future__ import annotations

import shutil
from dataclasses import replace

import pytest
import torch
from visual_cases import fitted, pictures, random_batch, tiny_model, tiny_training

from worldmodels.imagination import imagine
from worldmodels.training import devices
from worldmodels.training.devices import DeviceError, mixed_dtype, quick_matrices, resolve_device


def test_auto_is_the_first_device_there(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    assert resolve_device("auto") == resolve_device("cpu") == "cpu"
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    assert resolve_device("auto") == resolve_device("mps") == "mps"
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert resolve_device("auto") == "cuda"


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("tpu", "device='tpu' is not valid: expected auto, cpu, cuda, cuda:N or mps"),
        ("cuda:99", "device='cuda:99'.*CUDA devices here; use --device cpu"),
        ("mps", "device='mps' is not there: use --device cpu or auto"),
    ],
)
def test_a_device_that_is_not_there_is_named(name, words, monkeypatch):
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    with pytest.raises(DeviceError, match=words):
        resolve_device(name)


def test_mixed_precision_follows_the_hardware(monkeypatch):
    monkeypatch.setattr(devices, "_cpu_has_bfloat16", lambda: True)
    assert mixed_dtype("auto", "cpu") is mixed_dtype("bfloat16", "cpu") is torch.bfloat16
    assert mixed_dtype("float32", "cpu") is None and mixed_dtype("auto", "mps") is None
    monkeypatch.setattr(devices, "_cpu_has_bfloat16", lambda: False)
    assert mixed_dtype("auto", "cpu") is None
    with pytest.raises(DeviceError, match="cpu has no bfloat16; use auto or float32"):
        mixed_dtype("bfloat16", "cpu")


def test_matrix_precision_is_put_back(monkeypatch):
    before = torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32
    with quick_matrices("cuda"):
        assert torch.get_float32_matmul_precision() == "high"
    assert (torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32) == before


def test_a_quick_model_draws_the_same_pictures():
    """Channels last and bfloat16 change rounding, not names, shapes or types."""
    model = tiny_model("spatial_hamiltonian").eval()
    batch, names = random_batch(model), list(model.state_dict())

    def draw() -> torch.Tensor:
        with torch.no_grad():
            return model.decode(model.encode(batch.frames[:, :2], None, batch.actions[:, :1]))

    plain = draw()
    model.accelerate(torch.bfloat16, compiled=False)
    quick = draw()
    assert quick.dtype == torch.float32 and list(model.state_dict()) == names
    torch.testing.assert_close(quick, plain, atol=0.02, rtol=0.0)
    model.accelerate(None, compiled=False)
    torch.testing.assert_close(draw(), plain, atol=1e-5, rtol=0.0)


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("c++") is None, reason="torch.compile needs a C++ compiler")
def test_a_compiled_model_predicts_and_learns_the_same():
    """Up to rounding. (Compiled code draws other random numbers, so trainings differ by their noise.)"""
    model = tiny_model("spatial_hamiltonian").eval()
    batch, names = random_batch(model), list(model.state_dict())

    def run() -> tuple[torch.Tensor, torch.Tensor]:
        model.zero_grad()
        latent = model.encode(batch.frames[:, :2], None, batch.actions[:, :1])
        pictures = imagine(model, latent, batch.actions[:, 1:])
        pictures.pow(2).sum().backward()
        return pictures.detach(), model.dynamics.potential.out.weight.grad.clone()

    plain = run()
    model.accelerate(None, compiled=True)
    for ours, theirs in zip(run(), plain, strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=1e-3)
    assert list(model.state_dict()) == names


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("predictor", ["spatial_hamiltonian", "flat_lstm"])
def test_training_on_cuda_learns_about_the_same(predictor, tmp_path):
    """Mixed precision, compiled, frames on the device: close to the CPU after a few steps."""
    config, buffer = tiny_training(predictor), pictures(tmp_path)
    results = [
        fitted(replace(config, device=device, precision="auto"), buffer, tmp_path / device)[0]
        for device in ("cpu", "cuda")
    ]
    assert results[1]["skipped"] == 0
    losses = [result["train/loss"] for result in results]
    assert losses[1] == pytest.approx(losses[0], rel=0.2)
