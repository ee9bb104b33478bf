"""The local file is always right; wandb is read back from a real offline run."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
import warnings
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest

from worldmodels.configs.training import LogConfig
from worldmodels.storage.files import StorageError
from worldmodels.training.tracking import Logger, read_metrics

NO_SERVER = "http://127.0.0.1:9"
SCALARS = (float("nan"), float("inf"), -float("inf"), np.float32("nan"), np.array(np.inf))


@pytest.fixture(autouse=True)
def wandb_home(tmp_path, monkeypatch):
    """Everything wandb writes stays below the test's folder, and no account is found."""
    home = tmp_path / "home"
    home.mkdir()
    for name in ("HOME", "WANDB_CACHE_DIR", "WANDB_DATA_DIR", "WANDB_CONFIG_DIR", "NETRC"):
        monkeypatch.setenv(name, str(home))
    for name in ("WANDB_API_KEY", "WANDB_MODE", "WANDB_BASE_URL", "WANDB_DIR"):
        monkeypatch.delenv(name, raising=False)


def inspect(run_dir: Path) -> dict[str, list[dict]]:
    """Records of the offline run under `run_dir` by type, as `wandb leet inspect` reads them."""
    (log,) = run_dir.glob("wandb/offline-run-*/run-*.wandb")
    done = subprocess.run(
        [Path(sys.executable).with_name("wandb"), "leet", "inspect", "--json", log],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    records: dict[str, list[dict]] = {}
    for line in done.stdout.splitlines():
        record = json.loads(line)
        records.setdefault(record["type"], []).append(record[record["type"]])
    return records


def test_disabled_writes_rows_and_nothing_else(tmp_path):
    with Logger(tmp_path / "run") as logger:
        logger.log({"train/loss": 0.5}, 1)
        assert read_metrics(tmp_path / "run") == [{"epoch": 1, "train/loss": 0.5}], "not flushed"
        logger.log({"train/loss": np.float32(0.25), "eval/n": np.int64(3)}, 2)
    assert read_metrics(tmp_path / "run")[1] == {"epoch": 2, "train/loss": 0.25, "eval/n": 3}
    assert os.listdir(tmp_path / "run") == ["metrics.jsonl"]
    assert logger.run_id is None


def test_disabled_imports_no_wandb(tmp_path):
    code = (
        "import sys; from worldmodels.training.tracking import Logger; l = Logger('run');"
        "l.log({'a': 1}, 0); l.finish(); sys.exit('wandb' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], cwd=tmp_path, timeout=60).returncode == 0


@pytest.mark.parametrize("value", SCALARS)
def test_numbers_that_are_not_finite_are_null(tmp_path, value):
    with Logger(tmp_path) as logger:
        logger.log({"eval/x": value}, 0)
    assert (tmp_path / "metrics.jsonl").read_text() == '{"epoch": 0, "eval/x": null}\n'


def test_a_torn_last_line_is_skipped_and_mended(tmp_path):
    with Logger(tmp_path) as logger:
        logger.log({"a": 1}, 0)
        logger.log({"a": 2}, 1)
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(path.read_bytes()[:-5])
    assert read_metrics(tmp_path) == [{"epoch": 0, "a": 1}]
    with Logger(tmp_path) as logger:
        logger.log({"a": 3}, 1)
    assert read_metrics(path) == [{"epoch": 0, "a": 1}, {"epoch": 1, "a": 3}]


def test_rewind_drops_the_rows_a_resumed_run_writes_again(tmp_path):
    with Logger(tmp_path) as logger:
        for step in range(5):
            logger.log({"a": step}, step)
        before = (tmp_path / "metrics.jsonl").read_bytes()
        logger.rewind(2)
        assert [row["epoch"] for row in read_metrics(tmp_path)] == [0, 1, 2]
        for step in (3, 4):
            logger.log({"a": step}, step)
    assert (tmp_path / "metrics.jsonl").read_bytes() == before


ROWS = b'{"epoch": 1, "a": 1.0}\n{"epoch": 2, "a": null}\n'
NO_ROWS = (
    b"[]",
    b"7",
    b'"text"',
    b"{",
    b'{"epoch": "x"}',
    b'{"epoch": 1.5}',
    b'{"epoch": null}',
    b'{"a": 1}',
    b'{"epoch": 1, "a": NaN}',
    b'{"epoch": 1, "a": [1]}',
    b'{"epoch": 1, "a": {}}',
    b'{"epoch": 1, "epoch": 2}',
    b"[" * 100_000,
    b"\xff\xfe",
)


@pytest.mark.parametrize("line", NO_ROWS, ids=lambda line: repr(line[:24]))
def test_what_is_no_row_is_left_out_and_said(tmp_path, line):
    (tmp_path / "metrics.jsonl").write_bytes(line + b"\n" + ROWS)
    with pytest.warns(RuntimeWarning, match="1 lines are no rows"):
        assert [row["epoch"] for row in read_metrics(tmp_path)] == [1, 2]
    with pytest.warns(RuntimeWarning, match="no rows"):
        logger = Logger(tmp_path)
    logger.rewind(1)
    logger.log({"a": None}, 2)
    logger.finish()
    assert (tmp_path / "metrics.jsonl").read_bytes() == ROWS


def test_an_evaluation_never_writes_a_trainings_rows(tmp_path):
    (tmp_path / "metrics.jsonl").write_bytes(ROWS)
    with Logger(tmp_path, job_type="evaluate") as logger:
        logger.log({"eval/nmse": 0.5}, 0)
    assert (tmp_path / "metrics.jsonl").read_bytes() == ROWS
    assert read_metrics(tmp_path / "evaluation.jsonl") == [{"epoch": 0, "eval/nmse": 0.5}]


@pytest.mark.parametrize("taken", [0, 7])
def test_a_row_that_does_not_fit_is_not_begun(tmp_path, monkeypatch, taken):
    logger, write, calls = Logger(tmp_path), os.write, [0]
    logger.log({"a": 1.0}, 1)

    def full(descriptor, content):
        calls[0] += 1
        if calls[0] == 1 and taken:
            return write(descriptor, content[:taken])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "write", full)
    with pytest.raises(StorageError, match=r"metrics\.jsonl: No space left.*--resume"):
        logger.log({"a": 2.0}, 2)
    monkeypatch.undo()
    assert (tmp_path / "metrics.jsonl").read_bytes() == b'{"epoch": 1, "a": 1.0}\n'
    logger.log({"a": 2.0}, 2)
    logger.finish()
    assert [row["a"] for row in read_metrics(tmp_path)] == [1.0, 2.0]


def test_metrics_that_are_no_file_are_refused(tmp_path):
    (tmp_path / "metrics.jsonl").mkdir()
    with pytest.raises(StorageError, match=r"metrics\.jsonl"):
        Logger(tmp_path)


def test_metrics_of_a_folder_without_any(tmp_path):
    assert read_metrics(tmp_path) == []


def test_an_offline_run_reads_back(tmp_path):
    run_dir = tmp_path / "run"
    files = _media(tmp_path)
    config = LogConfig(wandb="offline", project="laws", group="offline")
    with warnings.catch_warnings():
        warnings.filterwarnings("error", category=RuntimeWarning)
        logger = Logger(run_dir, config, {"env_name": "pendulum", "optim": {"lr": 1e-3}}, name="n")
        for step, loss in enumerate((0.5, float("nan"), 0.25)):
            logger.log({"train/loss": loss, "eval/mse_h10": loss}, step)
        logger.table("comparison", ["model", "mse"], [["jump", 0.1], ["floor", float("nan")]])
        logger.image("eval/horizon", files / "curve.png")
        logger.video("eval/rollout", files / "film.mp4")
        logger.artifact("buffer pendulum", "dataset", files / "data", {"n": 3}, used=True)
        logger.artifact("model-pendulum", "model", files / "data", aliases=["best"])
        logger.summary({"best": 0.25})
        logger.finish()
        logger.finish()

    records = inspect(run_dir)
    (run,) = records["run"]
    assert {"project": "laws", "run_group": "offline", "job_type": "train"}.items() <= run.items()
    assert run["config"]["update"]["optim"] == {"lr": 1e-3}
    metrics = {m.get("name") or m["glob_name"]: m for m in records["metric"]}
    assert metrics["train/*"]["step_metric"] == metrics["eval/*"]["step_metric"] == "epoch"
    assert metrics["eval/*"]["summary"] == {"min": True}
    rows = [h["item"] for h in records["history"]]
    assert [r["train/loss"] for r in rows if "train/loss" in r] == [0.5, 0.25]
    assert [r["epoch"] for r in rows if "epoch" in r] == [0, 1, 2]
    keys = {key.partition(".")[0] for row in rows for key in row}
    assert {"comparison", "media/horizon", "media/rollout"} <= keys
    artifacts = {a["name"]: a for a in records["artifact"]}
    assert json.loads(artifacts["buffer-pendulum"]["metadata"]) == {"n": 3, "input": True}
    assert set(artifacts["model-pendulum"]["aliases"]) == {"latest", "best"}
    configs = [c["update"] for c in records["config"]]
    assert {"uses/dataset": "buffer-pendulum"} in configs
    assert records["exit"][0]["exit_code"] == 0
    losses = [row["train/loss"] for row in read_metrics(run_dir)]
    assert losses == [0.5, None, 0.25]


def test_an_agent_counts_env_steps(tmp_path):
    with Logger(tmp_path, LogConfig(wandb="offline"), job_type="agent") as logger:
        logger.log({"agent/return": 1.0}, 2048)
    assert read_metrics(tmp_path) == [{"env_steps": 2048, "agent/return": 1.0}]
    metrics = inspect(tmp_path)["metric"]
    assert {"glob_name": "agent/*", "step_metric": "env_steps"}.items() <= metrics[-1].items()


@pytest.mark.parametrize("key", [None, "a" * 40], ids=["no key", "no network"])
def test_online_without_key_or_network_goes_on_offline(tmp_path, monkeypatch, key):
    monkeypatch.setenv("WANDB_BASE_URL", NO_SERVER)
    if key:
        monkeypatch.setenv("WANDB_API_KEY", key)
    began = time.perf_counter()
    with pytest.warns(RuntimeWarning, match="offline for this run") as caught:
        logger = Logger(tmp_path, LogConfig(wandb="online"), {"seed": 1})
    assert time.perf_counter() - began < 15
    assert len([w for w in caught if w.category is RuntimeWarning]) == 1
    logger.log({"train/loss": 1.0}, 0)
    logger.finish()
    assert read_metrics(tmp_path) == [{"epoch": 0, "train/loss": 1.0}]
    (row,) = (h["item"] for h in inspect(tmp_path)["history"])
    assert row["train/loss"] == 1.0


def test_wandb_not_installed_is_one_warning(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.warns(RuntimeWarning, match="not installed") as caught:
        logger = Logger(tmp_path, LogConfig(wandb="online"))
    _use_everything(logger, tmp_path)
    assert len(caught) == 1
    assert len(read_metrics(tmp_path)) == 2


def test_wandb_failing_at_start_is_one_more_warning(tmp_path, monkeypatch):
    broken = SimpleNamespace(Settings=lambda **_: None, init=_fail, login=_fail)
    monkeypatch.setitem(sys.modules, "wandb", broken)
    with pytest.warns(RuntimeWarning, match="off for this run"):
        logger = Logger(tmp_path, LogConfig(wandb="offline"))
    _use_everything(logger, tmp_path)
    assert len(read_metrics(tmp_path)) == 2


def test_wandb_failing_in_a_run_warns_once(tmp_path):
    logger = Logger(tmp_path, LogConfig(wandb="offline"))
    real, logger._run = logger._run, SimpleNamespace(log=_fail, finish=_fail, id="x")
    with pytest.warns(RuntimeWarning, match="wandb failed") as caught:
        _use_everything(logger, tmp_path)
    real.finish()
    assert len(caught) == 1
    assert len(read_metrics(tmp_path)) == 2


def _fail(*_, **__):
    raise ConnectionError("the server is gone\nwith details")


def _use_everything(logger: Logger, folder: Path) -> None:
    logger.log({"a": 1.0}, 0)
    logger.log({"a": 2.0}, 1)
    logger.table("t", ["a"], [[1]])
    logger.image("i", folder / "missing.png")
    logger.video("v", folder / "missing.mp4")
    logger.artifact("a", "model", folder / "missing")
    logger.summary({"a": 1})
    logger.finish()


def _media(folder: Path) -> Path:
    """A picture, a film and a folder to record."""
    picture = np.zeros((64, 64, 3), np.uint8)
    cv2.imwrite(str(folder / "curve.png"), picture)
    film = cv2.VideoWriter(str(folder / "film.mp4"), cv2.VideoWriter_fourcc(*"vp09"), 10, (64, 64))
    for _ in range(4):
        film.write(picture)
    film.release()
    (folder / "data").mkdir()
    (folder / "data" / "dataset.json").write_text("{}")
    return folder
