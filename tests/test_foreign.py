"""Envs that are not of PhysGym: what is known of one, its buffers, models, and learned envs."""

from __future__ import annotations

import pickle
from dataclasses import replace
from pathlib import Path
from typing import Any

import foreign_cases as cases
import gymnasium
import numpy as np
import pytest
import torch
from gymnasium import spaces
from gymnasium.error import InvalidAction
from gymnasium.utils.env_checker import check_env
from test_commands import command

import physgym
import worldmodels
from worldmodels.configs.coordinates import Coordinates
from worldmodels.configs.schema import ConfigError
from worldmodels.configs.training import MODELS
from worldmodels.data import CollectConfig, Dataset, DatasetError, collect, load_dataset
from worldmodels.data.given import ARRAYS
from worldmodels.envs.single import make_truth
from worldmodels.envs.task import prediction_limit
from worldmodels.evaluation.comparison import evaluate, write_report
from worldmodels.interface import Spec
from worldmodels.models.observed import Observed

TINY = {"epochs": 2, "validation_steps": 5}


@pytest.fixture(scope="module")
def buffers(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a small buffer of the cart, and one of CartPole-v1."""
    root = tmp_path_factory.mktemp("datasets")
    collect(CollectConfig(env=cases.CART, name="b", episodes=60, policy="ou"), root, progress=False)
    collect(CollectConfig(env="CartPole-v1", name="b", episodes=40), root, progress=False)
    return root


def trained(root: Path, out: Path, env: str, structure: str, **options: Any) -> Any:
    """A model of that structure after a short training."""
    config = worldmodels.default_config(env, structure)
    optim = replace(config.optim, steps_per_epoch=40, batch_size=64)
    config = replace(config, out=str(out), **{**TINY, "optim": optim, **options})
    dataset = load_dataset(f"{physgym.get_system(env).folder}/b", root)
    worldmodels.train(replace(config, dataset=str(dataset.path)), dataset, progress=False)
    return worldmodels.load(out)


# -- what is known ---------------------------------------------------------------------------------


def test_what_nobody_has_said_is_not_known() -> None:
    ours, other = physgym.get_system("pendulum"), physgym.get_system("Pendulum-v1")
    assert {"energy", "equations", "pictures"} <= ours.knows and not other.knows
    assert np.isnan(other.energy(np.zeros((4, 3)), None)).all()
    assert (other.dt, other.max_episode_steps, other.action_mode) == (0.05, 200, "continuous")
    assert physgym.get_system("CartPole-v1").dt == 0.02
    assert physgym.get_system("MountainCar-v0").dt == 1.0  # its velocity is a change a step
    assert physgym.get_system("CartPole-v1") is physgym.get_system("CartPole-v1")


def test_an_id_may_name_the_module_that_registers_it() -> None:
    found = physgym.get_system(f"foreign_cases:{cases.CART}")
    assert found.state_size == 2 and found.folder == "foreign_cases-Lab-ForeignCart-v0"
    with pytest.raises(ConfigError, match="nowhere_at_all"):
        CollectConfig(env="nowhere_at_all:Cart-v0")


class Wrong(gymnasium.Env[Any, Any]):
    """An env of the spaces that it is told."""

    def __init__(self, seen: spaces.Space[Any], acts: spaces.Space[Any]) -> None:
        self.observation_space, self.action_space = seen, acts


ROW, TWO = spaces.Box(-1, 1, (2,)), spaces.Discrete(2)
WRONG = {
    "picture": (spaces.Box(0, 255, (8, 8, 3), np.uint8), TWO, "rendered pictures"),
    "dict": (spaces.Dict({"a": spaces.Text(3)}), TWO, "FlattenObservation"),
    "discrete": (spaces.Discrete(4), TWO, "one-hot"),
    "unbounded": (ROW, spaces.Box(-np.inf, np.inf, (1,)), "RescaleAction"),
    "many": (ROW, spaces.MultiDiscrete([2, 2]), "flatten"),
}


@pytest.mark.parametrize("name", WRONG)
def test_spaces_that_no_model_learns_are_refused_in_one_line(name: str) -> None:
    seen, acts, fix = WRONG[name]
    env_id = f"Lab/Wrong-{name}-v0"
    if env_id not in gymnasium.registry:
        gymnasium.register(env_id, lambda **_: Wrong(seen, acts), disable_env_checker=True)
    with pytest.raises(ConfigError, match=fix) as caught:
        worldmodels.default_config(env_id, "jump")
    assert "\n" not in str(caught.value) and env_id in str(caught.value)


def test_the_closest_id_is_named() -> None:
    with pytest.raises(ConfigError, match="did you mean 'CartPole-v1'"):
        worldmodels.default_config("CartPol-v1")
    with pytest.raises(ConfigError, match="did you mean 'pendulum'"):
        worldmodels.default_config("pendulun")
    with pytest.raises(ConfigError, match=r"cannot be made with.*no_such"):
        CollectConfig(env="CartPole-v1", make_kwargs={"no_such": 1})
    with pytest.raises(ConfigError, match="params"):
        CollectConfig(env="CartPole-v1", params={"mass": 1.0})
    with pytest.raises(ConfigError, match="make_kwargs"):
        CollectConfig(env="pendulum", make_kwargs={"g": 1.0})


def test_actions_are_mapped_to_the_env_and_back() -> None:
    system = cases.system()
    acts = np.linspace(-1, 1, 9)[:, None]
    assert system.to_env(acts)[[0, 4, 8], 0].tolist() == [-3.0, 1.0, 5.0]
    assert system.from_env(system.to_env(acts)) == pytest.approx(acts)
    task = system.task()
    assert task.actions.rows(np.array([[5.0], [1.0]]), 2).tolist() == [[1.0], [0.0]]
    with pytest.raises(InvalidAction, match="shape"):
        task.actions.rows(np.zeros(2), 2)
    with pytest.raises(InvalidAction, match="not all in"):
        task.actions.rows(np.array([[np.nan], [1.0]]), 2)
    cart_pole = physgym.get_system("CartPole-v1").task()
    with pytest.raises(InvalidAction, match="not one of"):
        cart_pole.actions.index(2)
    copy = pickle.loads(pickle.dumps(task))
    assert copy.system is system and copy.dt == task.dt


# -- coordinates -----------------------------------------------------------------------------------


@pytest.mark.parametrize("text", ["0+1 | 2", "0 2 | 1 3", "0~ | 1", "0+1 2+3 | 4 5"])
def test_coordinates_are_what_their_text_says(text: str) -> None:
    assert Coordinates.parse(text).text == text


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("0 1", "expected positions"),
        ("0 1 | 2", "2 positions and 1 velocities"),
        ("0 | 0", "twice"),
        ("0 | 7", "name observation 7"),
        ("0 | 1", "do not say what observation 2"),
        ("a | b", "expected positions"),
    ],
)
def test_coordinates_that_cannot_be_are_refused(text: str, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        Coordinates.parse(text).check_size(3, "an env")


def test_structures_ask_what_is_a_position() -> None:
    with pytest.raises(ConfigError, match=r"newtonian.*needs to know.*--env.coordinates.*jump"):
        worldmodels.default_config(cases.CART, "newtonian")
    for name in ("jump", "lstm", "first_order"):
        assert worldmodels.default_config(cases.CART, name).env.action_mode == "continuous"
    config = worldmodels.default_config("CartPole-v1", "velocity")  # known
    with pytest.raises(ConfigError, match="velocity"):
        replace(config, env=replace(config.env, coordinates="none"))
    for name in ("spatial_newtonian", "keypoint_hamiltonian"):  # pictures are asked for nothing
        assert worldmodels.default_config(cases.CART, "visual", name).env.coordinates is None
    with pytest.raises(ConfigError, match="states of the pendulum"):
        ours = worldmodels.default_config("pendulum")
        replace(ours, env=replace(ours.env, coordinates="0 | 1"))


def spec(size: int, coordinates: str) -> Spec:
    return Spec("X-v0", state_size=size, foreign=True, coordinates=coordinates)


def test_observations_and_features_are_one_another() -> None:
    angle, rate, x, v = torch.linspace(-3, 3, 7), torch.ones(7), torch.arange(7.0), torch.zeros(7)
    seen = torch.stack([rate, angle.cos(), x, angle.sin(), v], 1)
    known = Observed(spec(5, "1+3 2 | 0 4"))
    features = known.features(seen)
    assert torch.allclose(features, torch.stack([angle, x, rate, v], 1), atol=1e-6)
    assert torch.allclose(known.shown(features), seen, atol=1e-6)
    assert (known.size, known.angles) == (4, (0,))
    gap = known.difference(torch.tensor([[3.1, 0, 0, 0]]), torch.tensor([[-3.1, 0, 0, 0]]))
    assert float(gap[0, 0]) == pytest.approx(6.2 - 2 * np.pi, abs=1e-5)
    plain = Observed(spec(5, ""))
    assert plain.features(seen) is seen and not plain.structured


# -- buffers ---------------------------------------------------------------------------------------


def test_a_buffer_holds_what_the_env_did(buffers: Path) -> None:
    for env in (cases.CART, "CartPole-v1"):
        system = physgym.get_system(env)
        dataset = load_dataset(f"{system.folder}/b", buffers)
        assert np.isnan(dataset.energy).all() and dataset.param_array.shape == (len(dataset), 0)
        true = gymnasium.make(env)
        for row in range(5):
            length = int(dataset.lengths[row])
            seen = [true.reset(seed=int(dataset.seeds[row]))[0]]
            for step in range(length):
                action = system.to_env(dataset.actions[row, step])
                observation, reward, terminated, truncated, _ = true.step(action)
                seen.append(observation)
                assert reward == dataset.rewards[row, step]
                assert terminated == dataset.terminated[row, step]
            assert (dataset.states[row, : length + 1] == np.array(seen)).all()
            assert terminated or truncated
            assert (dataset.states[row, length:] == seen[-1]).all()


def test_workers_and_pictures_change_nothing(tmp_path: Path) -> None:
    config = CollectConfig(env=cases.CART, episodes=6, shard_episodes=2, policy="mixed", steps=8)
    one = load_dataset(collect(config, tmp_path / "a", progress=False))
    drawn = replace(config, pixels=True, image_size=16)
    two = load_dataset(collect(drawn, tmp_path / "b", progress=False))
    assert (one.states == two.states).all() and (one.actions == two.actions).all()
    assert two.pixels is not None and two.pixels[0].shape == (9, 16, 16, 3)
    assert two.pixels[0].max() > 100


def test_policies_that_mean_nothing_here_are_refused(tmp_path: Path) -> None:
    for policy in ("zero", "ou"):
        with pytest.raises(DatasetError, match=policy):
            collect(CollectConfig(env="CartPole-v1", policy=policy), tmp_path, progress=False)
    with pytest.raises(ConfigError, match=r"'uo'.*module:function"):
        CollectConfig(policy="uo")
    with pytest.raises(ValueError, match="no function 'nobody'"):
        collect(CollectConfig(policy="foreign_cases:nobody"), tmp_path, progress=False)
    with pytest.raises(DatasetError, match="brought"):
        collect(CollectConfig(policy="given"), tmp_path, progress=False)


def push(observations: np.ndarray) -> np.ndarray:
    """A user's policy of the cart."""
    return np.clip(-observations[:, :1] - observations[:, 1:], -3.0, 5.0)


def push_pendulum(observations: np.ndarray) -> np.ndarray:
    """A user's policy of the pendulum, which has three actions."""
    return np.where(observations[:, 1] > 0, 2, 0)


def wrong(observations: np.ndarray) -> np.ndarray:
    """A policy of another shape."""
    return np.zeros(3)


def test_a_users_function_acts(tmp_path: Path) -> None:
    config = CollectConfig(env=cases.CART, episodes=3, policy="test_foreign:push")
    dataset = load_dataset(collect(config, tmp_path, progress=False))
    seen, acts = dataset.states[0, :-1], dataset.actions[0]
    kept = np.arange(len(acts)) < dataset.lengths[0]
    wanted = cases.system().from_env(push(seen))
    assert acts[kept] == pytest.approx(wanted[kept], abs=1e-6)
    own = CollectConfig(env="pendulum", episodes=3, steps=20, policy="test_foreign:push_pendulum")
    dataset = load_dataset(collect(own, tmp_path, progress=False))
    assert (dataset.actions == np.where(dataset.states[:, :-1, 1] > 0, 2, 0)).all()
    with pytest.raises(ValueError, match=r"shape \(3,\)"):
        collect(replace(own, name="w", policy="test_foreign:wrong"), tmp_path, progress=False)
    # Nothing was saved, so the name is free.
    collect(replace(own, name="w"), tmp_path, progress=False)


def test_an_ornstein_uhlenbeck_process_is_one(tmp_path: Path) -> None:
    config = CollectConfig(env="pendulum", episodes=40, policy="ou", action_mode="continuous")
    acts = load_dataset(collect(config, tmp_path, progress=False)).actions[..., 0].astype(float)
    inside = acts[:, :-1][np.abs(acts[:, :-1]) < 0.5], acts[:, 1:][np.abs(acts[:, :-1]) < 0.5]
    assert np.polyfit(*inside, 1)[0] == pytest.approx(0.85, abs=0.03)
    assert np.std(inside[1] - 0.85 * inside[0]) == pytest.approx(0.3, rel=0.05)


# -- episodes from elsewhere -----------------------------------------------------------------------


def columns(count: int = 5, steps: int = 7) -> dict[str, list[np.ndarray]]:
    """Episodes of the cart, made by hand."""
    rng = np.random.default_rng(0)
    found: dict[str, list[np.ndarray]] = {name: [] for name in ARRAYS}
    for _ in range(count):
        acts = rng.uniform(-3, 5, (steps, 1))
        states = [rng.uniform(-0.1, 0.1, (1, 2))]
        for action in acts:
            states.append(cases.moved(states[-1], action[None]))
        found["observations"].append(np.concatenate(states))
        found["actions"].append(acts)
        found["rewards"].append(
            cases.reward(np.concatenate(states[:-1]), acts, np.concatenate(states[1:]))
        )
        found["terminated"].append(np.arange(steps) == steps)
        found["truncated"].append(np.arange(steps) == steps - 1)
    return found


def test_episodes_from_elsewhere_are_a_buffer(tmp_path: Path) -> None:
    from worldmodels.data.given import from_archive, to_archive

    given = columns()
    dataset = Dataset.from_episodes(**given, env=cases.CART, name="mine", root=tmp_path)
    assert len(dataset) == 5 and dataset.splits["test"].size == 1
    assert (dataset.states[2] == given["observations"][2]).all()
    path = to_archive(dataset, tmp_path / "e.npz")
    again = from_archive(path, env=cases.CART, name="again", root=tmp_path)
    assert (again.states == dataset.states).all()
    assert again.actions == pytest.approx(dataset.actions, abs=1e-6)
    with pytest.raises(DatasetError, match="choose another name"):
        Dataset.from_episodes(**given, env=cases.CART, name="mine", root=tmp_path)
    with pytest.raises(DatasetError, match="is no NumPy archive"):
        from_archive(__file__, env=cases.CART, name="x", root=tmp_path)


def test_states_of_our_own_systems_can_be_brought(tmp_path: Path) -> None:
    config = CollectConfig(env="pendulum", episodes=4, steps=9)
    known = load_dataset(collect(config, tmp_path, progress=False))
    from worldmodels.data.given import episodes_of

    parts = list(zip(*episodes_of(known), strict=True))
    brought = Dataset.from_episodes(*parts, env="pendulum", name="mine", root=tmp_path)
    assert (brought.states == known.states).all() and brought.energy == pytest.approx(known.energy)


def _nan(given: dict[str, list[Any]]) -> None:
    given["observations"][1][3, 0] = np.nan


def _short(given: dict[str, list[Any]]) -> None:
    given["observations"][2] = given["observations"][2][:-1]


def _early(given: dict[str, list[Any]]) -> None:
    given["terminated"][0] = np.arange(7) == 3


def _outside(given: dict[str, list[Any]]) -> None:
    given["actions"][4][2] = 9.0


def _empty(given: dict[str, list[Any]]) -> None:
    for values in given.values():
        values.clear()


def _none(given: dict[str, list[Any]]) -> None:
    given["rewards"][0] = np.zeros(0)


def _uneven(given: dict[str, list[Any]]) -> None:
    given["rewards"].pop()


def _words(given: dict[str, list[Any]]) -> None:
    given["rewards"][0] = ["much"] * 7


BAD = {
    _nan: "episode 1: observations at step 3 are not finite",
    _short: r"episode 2 has observations of shape \(7, 2\)",
    _early: "episode 0 is terminated at step 3",
    _outside: r"episode 4: action \[9.\] at step 2",
    _empty: "at least one",
    _none: "episode 0 has rewards of shape",
    _uneven: "as many of each",
    _words: "episode 0 is not made of numbers",
}


@pytest.mark.parametrize("spoil", BAD, ids=lambda spoil: spoil.__name__)
def test_episodes_that_cannot_be_are_refused(spoil: Any, tmp_path: Path) -> None:
    given = columns()
    spoil(given)
    with pytest.raises(DatasetError, match=BAD[spoil]):
        Dataset.from_episodes(**given, env=cases.CART, name="bad", root=tmp_path)
    assert not list(tmp_path.rglob("*.h5"))


def test_a_minari_set_comes_and_goes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("minari")
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "minari"))
    from worldmodels.data.minari_sets import from_minari, to_minari

    config = CollectConfig(env="CartPole-v1", episodes=4, make_kwargs={"sutton_barto_reward": True})
    known = load_dataset(collect(config, tmp_path, progress=False))
    to_minari(known, "cartpole/mine-v0")
    back = from_minari("cartpole/mine-v0", name="back", root=tmp_path)
    assert back.env_kwargs == {"sutton_barto_reward": True}
    longest = int(known.lengths.max())
    assert (back.lengths == known.lengths).all()
    assert (back.actions == known.actions[:, :longest]).all()
    assert back.states == pytest.approx(known.states[:, : longest + 1], rel=1e-6)
    assert (back.terminated == known.terminated[:, :longest]).all()
    with pytest.raises(DatasetError, match="no Minari set"):
        from_minari("no/such-v0", name="x", root=tmp_path)


def test_a_buffer_grows(tmp_path: Path) -> None:
    from worldmodels.data.appending import append

    config = CollectConfig(env="oscillator", name="g", episodes=10, steps=6, shard_episodes=4)
    before = load_dataset(collect(config, tmp_path, progress=False))
    append(replace(config, episodes=5, policy="bang"), tmp_path, progress=False)
    after = load_dataset(append(replace(config, episodes=5, seed=3), tmp_path, progress=False))
    assert len(after) == 20 and (after.states[:10] == before.states).all()
    assert [part["policy"] for part in after.metadata["appended"]] == ["bang", "random"]
    for name, rows in before.splits.items():
        assert set(rows) <= set(after.splits[name]) and len(after.splits[name]) > len(rows)
    assert len(np.unique(after.states[:, 0], axis=0)) == 20
    with pytest.raises(DatasetError, match="dt"):
        append(replace(config, dt=0.02), tmp_path, progress=False)
    with pytest.raises(DatasetError, match="episodes=20"):
        collect(config, tmp_path, progress=False)
    (tmp_path / "oscillator" / "g" / "shard-00003.h5").unlink()
    with pytest.raises(DatasetError, match="appended to"):
        collect(replace(config, episodes=20), tmp_path, progress=False, repair=True, report=str)


# -- models ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", list(MODELS))
def test_every_structure_learns_a_foreign_env(name: str, buffers: Path, tmp_path: Path) -> None:
    config = worldmodels.default_config("CartPole-v1", name)
    model = trained(
        buffers, tmp_path / "run", "CartPole-v1", name, model=replace(config.model, ensemble=2)
    )
    assert model.spec.foreign and model.spec.coordinates == "0 2 | 1 3"
    worldmodels.check_world_model(model)
    env = worldmodels.make_env(model, num_envs=3)
    env.reset(seed=0)
    observations, rewards, *_ = env.step(np.array([0, 1, 1]))
    assert observations.shape == (3, 4) and rewards == pytest.approx(np.ones(3), abs=1e-3)


def test_rewards_and_ends_are_learned(buffers: Path, tmp_path: Path) -> None:
    optim = replace(worldmodels.default_config(cases.CART).optim, steps_per_epoch=150)
    model = trained(buffers, tmp_path / "run", cases.CART, "jump", epochs=4, optim=optim)
    dataset = load_dataset("Lab-ForeignCart-v0/b", buffers)
    report = evaluate({"jump": model}, dataset, horizon=10)
    told = report["rows"]["jump"]["outcomes"]
    assert told["reward_r_squared"] > 0.98 and told["rollout_reward_r_squared"] > 0.9
    assert report["rows"]["jump"]["nmse"]["10"]["median"] < 0.05
    assert report["true_power_residual"] is None and "constant-velocity" not in report["rows"]
    assert not any("oracle" in name for name in report["rows"])
    files = write_report(report, tmp_path / "report")
    assert sorted(path.suffix for path in files) == [".json", ".md", ".png"]
    text = (tmp_path / "report" / "report.md").read_text()
    assert "n/a" in text and "R² of reward" in text and "inf" not in text
    with pytest.raises(ValueError, match="nobody knows its equations"):
        evaluate({"jump": model}, dataset, horizon=10, dt_values=(0.1, 0.05))


def test_outcome_scores_of_a_perfect_model(buffers: Path) -> None:
    from worldmodels.evaluation.problems import from_dataset
    from worldmodels.evaluation.states.outcomes import outcome_scores

    class Judging(cases.PerfectCart):
        late = 0.0

        def judge(self, before: Any, action: Any, after: Any) -> Any:
            acts = 4.0 * action + 1.0
            rows = (before.double().numpy(), acts.double().numpy(), after.double().numpy())
            logit = np.abs(rows[2][:, 0]) - 2.0 - self.late
            return torch.as_tensor(cases.reward(*rows)), torch.as_tensor(logit)

    dataset = load_dataset("Lab-ForeignCart-v0/b", buffers)
    tasks = from_dataset(dataset, 25)
    assert tasks.terminated is not None and tasks.terminated.any()
    told = outcome_scores(Judging(), tasks)
    assert told["reward_r_squared"] == pytest.approx(1.0, abs=1e-6)
    assert (told["end_recall"], told["end_precision"]) == (1.0, 1.0)
    assert (told["ends_early"], told["ends_late"]) == (0.0, 0.0)
    slow = Judging()
    slow.late = 100.0
    told = outcome_scores(slow, tasks)
    assert told["end_recall"] == 0.0 and told["ends_late"] > 0.2 and told["ends_early"] == 0.0


def test_a_buffer_brings_the_arguments_of_its_env(tmp_path: Path) -> None:
    """Those decide what its actions are, whatever the env takes without them."""
    made = CollectConfig(env=cases.CART, name="k", episodes=5, make_kwargs={"reach": 0.1})
    dataset = load_dataset(collect(made, tmp_path, progress=False))
    config = worldmodels.default_config(cases.CART, "jump")
    settled = worldmodels.data.settled(replace(config, dataset=str(dataset.path)), dataset)
    assert settled.env.make_kwargs == {"reach": 0.1}
    other = replace(config, env=replace(config.env, make_kwargs={"reach": 0.2}))
    with pytest.raises(DatasetError, match="make_kwargs"):
        worldmodels.data.settled(other, dataset)


# -- learned envs ----------------------------------------------------------------------------------


def test_a_perfect_model_is_the_true_env() -> None:
    model = cases.PerfectCart()
    learned = worldmodels.make_env(model, reward_fn=cases.reward, terminated_fn=cases.ended)
    true = make_truth(model)
    assert learned.observation_space == true.observation_space
    assert learned.action_space == true.action_space
    rng, ends = np.random.default_rng(0), 0
    for episode in range(10):
        seed = int(rng.integers(2**31))
        first = learned.reset(seed=seed)[0]
        # A learned env draws the seed of the true one from its own generator.
        inner = int(np.random.default_rng(seed).integers(2**31))
        assert first == pytest.approx(true.reset(seed=inner)[0])
        over = False
        while not over:
            action = rng.uniform(-3, 5, 1) if episode % 2 else push(first[None])[0]
            one, two = learned.step(action), true.step(action)
            assert one[0] == pytest.approx(two[0], abs=1e-12)
            assert one[1] == pytest.approx(two[1], abs=1e-9)
            assert one[2:4] == two[2:4]
            first, over = one[0], bool(one[2] or one[3])
        ends += one[2]
    assert 0 < ends < 10
    cart_pole = physgym.get_system("CartPole-v1").task()
    assert cart_pole.actions.index(np.int64(1)) == 1


def test_stock_checks_and_sync_vector_env(buffers: Path, tmp_path: Path) -> None:
    model = trained(buffers, tmp_path / "run", "CartPole-v1", "jump")
    check_env(worldmodels.make_env(model), skip_render_check=True)
    rows = worldmodels.make_env(model, num_envs=3)
    sync = gymnasium.vector.SyncVectorEnv([lambda: worldmodels.make_env(model)] * 3)
    assert (rows.reset(seed=4)[0] == sync.reset(seed=4)[0]).all()
    rng = np.random.default_rng(1)
    for _ in range(40):
        actions = rng.integers(2, size=3)
        one, two = rows.step(actions), sync.step(actions)
        assert one[0] == pytest.approx(two[0], abs=1e-5)
        for left, right in zip(one[1:4], two[1:4], strict=True):
            assert left == pytest.approx(right, abs=1e-5)


def test_episodes_of_one_step_are_learned(tmp_path: Path) -> None:
    collect(CollectConfig(env=cases.BLINK, name="b", episodes=40), tmp_path, progress=False)
    model = trained(tmp_path, tmp_path / "run", cases.BLINK, "jump")
    dataset = load_dataset(f"{physgym.get_system(cases.BLINK).folder}/b", tmp_path)
    report = evaluate({"jump": model}, dataset)
    assert report["steps"] == 1 and report["rows"]["jump"]["outcomes"]["end_recall"] == 1.0
    with pytest.raises(ValueError, match="horizon 2 is beyond the episodes"):
        evaluate({"jump": model}, dataset, horizon=2)
    env = worldmodels.make_env(model, num_envs=2)
    env.reset(seed=0)
    assert env.step(env.action_space.sample())[2].all()


def test_a_start_may_be_given_and_bad_ones_are_refused() -> None:
    env = worldmodels.make_env(
        cases.PerfectCart(), reward_fn=cases.reward, terminated_fn=cases.ended
    )
    assert env.reset(options={"state": [0.5, -1.0]})[0] == pytest.approx([0.5, -1.0])
    for options, words in (
        ({"state": [0.5]}, "no observation"),
        ({"state": [np.nan, 0.0]}, "no observation"),
        ({"params": {"mass": 1}}, "'state', an observation"),
    ):
        with pytest.raises(ValueError, match=words):
            env.reset(options=options)


def _scalar(before: Any, actions: Any, after: Any) -> float:
    return 0.0


def _complex(before: Any, actions: Any, after: Any) -> Any:
    return np.zeros(len(after), complex)


def _floats(before: Any, actions: Any, after: Any) -> Any:
    return np.zeros(len(after))


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"reward_fn": _scalar}, r"shape \(\).*expected finite numbers of shape \(2,\)"),
        ({"reward_fn": _complex}, "complex128"),
        ({"reward_fn": 3}, "expected a function"),
        ({"terminated_fn": _floats}, "expected bool"),
        ({"obs_mode": "embedded"}, "cannot be chosen"),
    ],
)
def test_what_a_learned_env_cannot_be_given(given: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        worldmodels.make_env(cases.PerfectCart(), **given)
    ours = worldmodels.default_config("pendulum")
    assert ours.env.coordinates is None


def test_portraits_of_what_can_be_drawn_and_what_cannot() -> None:
    pytest.importorskip("pygame")
    drawn = physgym.get_system("CartPole-v1").portrait([1.0, 0, 0.1, 0], 120, "t")
    bars = cases.system().portrait([1.0, -2.0], 120)
    for picture in (drawn, bars):
        assert picture.shape == (120, 120, 3) and len(np.unique(picture.reshape(-1, 3), axis=0)) > 2
    moved = physgym.get_system("CartPole-v1").portrait([-1.0, 0, 0.1, 0], 120, "t")
    assert (moved != drawn).any()


def test_the_command_line_takes_any_env(tmp_path: Path) -> None:
    train = (
        "--env",
        "CartPole-v1",
        "--model",
        "velocity",
        "--epochs",
        "1",
        "--data.episodes",
        "20",
    )
    short = ("--optim.steps-per-epoch", "3", "--out", "run", "--validation-steps", "4")
    assert command(tmp_path, "train", *train, *short).returncode == 0
    said = command(tmp_path, "evaluate", "run")
    assert said.returncode == 0 and "learned rewards and ends" in said.stdout
    said = command(tmp_path, "visualize", "--run", "run", "--out", "f.gif", "--size", "64")
    assert said.returncode == 0 and (tmp_path / "f.gif").stat().st_size > 1000
    said = command(tmp_path, "visualize", "--run", "run", "--pictures", "p")
    assert said.returncode == 0 and (tmp_path / "p" / "series.png").exists()
    said = command(tmp_path, "convert", "CartPole-v1", "--to", "e.npz")
    assert said.returncode != 0 and "is no dataset" in said.stderr


def test_what_never_moved_in_a_buffer_may_move_a_little() -> None:
    """As the legs of LunarLander-v3, which touch the ground in few episodes."""
    model = cases.PerfectCart()
    model.register_buffer("reach", torch.tensor([0.0, 5.0]))
    limit = prediction_limit(model, cases.system().task(), 10.0)
    assert limit.tolist() == [np.inf, 50.0]
