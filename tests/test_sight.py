"""Pictures to points and back: what is found, how exactly it is read, and what cannot be."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from worldmodels.data.readings import trusted_steps
from worldmodels.sight.chart import Chart, fit_chart
from worldmodels.sight.finding import SightError, find_bodies
from worldmodels.sight.reader import Reader
from worldmodels.sight.seeing import learn_to_see, trusted
from worldmodels.sight.sprites import Sprites

SIZE = 32
COLOURS = torch.tensor([[0.9, 0.6, 0.1], [0.3, 0.7, 0.9], [0.8, 0.2, 0.6]])


def discs(places: torch.Tensor, colours: torch.Tensor, background=0.0, radius: float = 2.5):
    """Pictures (N, 3, S, S) of discs at `places` (N, K, 2), each pixel covered as far as it truly is."""
    fine = 8
    at = (torch.arange(SIZE * fine) + 0.5) / (SIZE * fine) * 2.0 - 1.0
    picture = torch.zeros(len(places), 3, SIZE, SIZE) + background
    for body, colour in enumerate(colours):
        x, y = places[:, body, 0, None, None], places[:, body, 1, None, None]
        inside = (
            (at[None, None] - x) ** 2 + (at[None, :, None] - y) ** 2
        ).sqrt() < 2 * radius / SIZE
        share = torch.nn.functional.avg_pool2d(inside.float().unsqueeze(1), fine)
        picture = picture * (1 - share) + share * colour[:, None, None]
    return picture


def apart(count: int, bodies: int, seed: int = 0) -> torch.Tensor:
    """Places (N, K, 2) of bodies that do not overlap."""
    generator = torch.Generator().manual_seed(seed)
    kept: list[torch.Tensor] = []
    while len(kept) < count:
        places = torch.rand((bodies, 2), generator=generator) * 1.4 - 0.7
        gaps = torch.cdist(places, places) + 9.0 * torch.eye(bodies)
        if float(gaps.min()) > 0.5:
            kept.append(places)
    return torch.stack(kept)


def texture() -> torch.Tensor:
    return 0.3 * torch.rand((3, SIZE, SIZE), generator=torch.Generator().manual_seed(3))


def reader_of(frames: torch.Tensor) -> Reader:
    found = find_bodies(frames)
    reader = Reader(len(found.colours), SIZE)
    reader.begin(found.background, found.colours, found.threshold, found.radius)
    reader.mass.copy_(reader(frames).seen.median(0).values)
    return reader


def worst(found: torch.Tensor, truth: torch.Tensor) -> float:
    """Pixels by which the worst reading is off, bodies in the order that suits best."""
    gaps = torch.cdist(found.mean(0), truth.mean(0))
    order = gaps.argmin(1)
    assert len(set(order.tolist())) == len(order)
    return float((found - truth[:, order]).norm(dim=2).max()) * SIZE / 2


@pytest.mark.parametrize("bodies", [1, 2, 3])
def test_bodies_are_counted_and_read_to_a_tenth_of_a_pixel(bodies: int) -> None:
    places = apart(60, bodies)
    frames = discs(places, COLOURS[:bodies])
    found = find_bodies(frames)
    assert len(found.colours) == bodies and found.counts == [1] * bodies
    assert found.radius.numpy() == pytest.approx(2.5, abs=0.4)
    assert torch.cdist(found.colours, COLOURS[:bodies]).min(1).values.max() < 0.05
    reading = reader_of(frames)(frames)
    assert worst(reading.points, places) < (0.05 if bodies == 1 else 0.1)
    assert trusted(reading.seen).all()


def test_a_static_texture_and_noise_do_not_pull_a_reading() -> None:
    places = apart(60, 1)
    frames = discs(places, COLOURS[:1], texture())
    assert worst(reader_of(frames)(frames).points, places) < 0.06
    noise = 0.02 * torch.randn(frames.shape, generator=torch.Generator().manual_seed(1))
    assert worst(reader_of(frames + noise)(frames + noise).points, places) < 0.15
    # On black, a picture cuts off half of the noise, and its median is zero.
    shown = (discs(places, COLOURS[:1]) + noise).clamp(0.0, 1.0)
    assert find_bodies(shown).counts == [1]
    assert worst(reader_of(shown)(shown).points, places) < 0.15


def test_one_body_alone_is_read_in_any_colour() -> None:
    places = apart(60, 1)
    reader = reader_of(discs(places, COLOURS[:1]))
    reading = reader(discs(places, COLOURS[:1].flip(1)))
    assert worst(reading.points, places) < 0.05 and trusted(reading.seen).all()


def test_what_is_hidden_or_gone_is_not_trusted() -> None:
    places = apart(60, 2)
    reader = reader_of(discs(places, COLOURS[:2]))
    order = 0 if torch.dist(reader.colours[0], COLOURS[0]) < 0.1 else 1
    over = torch.tensor([[[0.0, 0.0], [0.12, 0.0]]])  # the second disc covers half of the first
    seen = reader(discs(over, COLOURS[:2])).seen[0]
    assert not trusted(seen[order]) and trusted(seen[1 - order])
    gone = torch.tensor([[[5.0, 0.0], [0.0, 0.0]]])
    seen = reader(discs(gone, COLOURS[:2])).seen[0]
    assert float(seen[order]) < 0.1 and trusted(seen[1 - order])


def test_pictures_without_points_are_refused_in_one_line() -> None:
    still = torch.zeros(60, 3, SIZE, SIZE)
    with pytest.raises(SightError, match="nothing moves"):
        find_bodies(still)
    noise = torch.rand((60, 3, SIZE, SIZE), generator=torch.Generator().manual_seed(0))
    with pytest.raises(SightError, match="everything moves"):
        find_bodies(noise)
    places = apart(60, 2)
    twins = discs(places, COLOURS[[0, 0]])
    with pytest.raises(SightError, match="2 of colour #e5991a"):
        learn_to_see(twins, [twins[:20]], steps=1)
    frames = discs(places, COLOURS[:2])
    with pytest.raises(SightError, match=r"model\.points=3, but 2 bodies move"):
        learn_to_see(frames, [frames[:20]], 3, steps=1)
    with pytest.raises(SightError, match=r"coordinates names 1 kinds, but 2 bodies"):
        learn_to_see(frames, [frames[:20]], 0, ["plane"], steps=1)


def test_sprites_learn_what_is_seen_and_who_is_in_front() -> None:
    generator = torch.Generator().manual_seed(5)
    places = torch.rand((300, 2, 2), generator=generator) - 0.5
    places[::3, 1] = places[::3, 0] + 0.1 * torch.randn((100, 2), generator=generator)
    for front in ((0, 1), (1, 0)):
        frames = discs(places[:, list(front)], COLOURS[list(front)])
        seen = learn_to_see(frames, [frames[:50]], steps=150)
        colours = seen.sight.reader.colours
        nearest = torch.cdist(colours, COLOURS[:2]).argmin(1)
        assert nearest[seen.sight.sprites.order].tolist() == list(front)
        apart_frames = discs(apart(20, 2, 9), COLOURS[:2])
        drawn = seen.sight.sprites(seen.sight.reader(apart_frames).points)
        error = ((drawn - apart_frames) ** 2).sum() / (apart_frames**2).sum()
        assert float(error) < 0.03 and seen.explained > 0.9


def test_sprites_follow_a_place_between_pixels_and_beyond_the_edge() -> None:
    sprites = Sprites(1, SIZE, 6)
    sprites.begin(torch.zeros(3, SIZE, SIZE), COLOURS[:1], torch.tensor([2.5]))
    pixel = 2.0 / SIZE
    one = sprites(torch.tensor([[[0.03, -0.1]]]))
    moved = sprites(torch.tensor([[[0.03 + 3 * pixel, -0.1]]]))
    torch.testing.assert_close(moved[..., 3:], one[..., :-3], atol=1e-5, rtol=0)
    between = sprites(torch.tensor([[[0.03 + 0.5 * pixel, -0.1]]]))
    columns = torch.arange(SIZE).float()
    mass = between.detach().sum((1, 2)), one.detach().sum((1, 2))
    centre = [float((m[0] * columns).sum() / m[0].sum()) for m in mass]
    assert centre[0] - centre[1] == pytest.approx(0.5, abs=0.02)
    assert not sprites(torch.tensor([[[4.0, -9.0]]])).any()


def path_of(kind: str, generator: np.random.Generator, radius: float = 0.5) -> np.ndarray:
    angle = generator.uniform(-2, 2, (40, 1))
    if kind == "circle":
        return radius * np.concatenate((np.cos(angle), np.sin(angle)), 1) + (0.1, -0.2)
    if kind == "line":
        return 0.3 * angle * np.array([[0.6, 0.8]]) + (0.1, 0.1)
    return generator.uniform(-0.7, 0.7, (40, 2))


def test_a_chart_finds_what_each_point_lives_on_and_goes_back() -> None:
    rng, kinds = np.random.default_rng(0), ("plane", "circle", "line")
    episodes = [np.stack([path_of(kind, rng) for kind in kinds], 1) for _ in range(12)]
    episodes = [e + 5e-4 * rng.standard_normal(e.shape) for e in episodes]
    chart, residuals = fit_chart(episodes, 64)
    assert chart.kinds == kinds and chart.size == 4 and chart.angles == (2,)
    assert residuals[1].circle < 0.15 < residuals[1].line and residuals[2].line < 0.15
    points = torch.as_tensor(episodes[0], dtype=torch.float32)
    back = chart.points(chart.coordinates(points), chart.radii(points))
    assert float((back - points).abs().max()) < 3e-3
    forced, _ = fit_chart(episodes, 64, ["plane"] * 3)
    assert forced.size == 6


def test_rods_of_another_length_are_circles_too() -> None:
    rng = np.random.default_rng(1)
    episodes = [path_of("circle", rng, radius)[:, None] for radius in rng.uniform(0.3, 0.6, 12)]
    chart, residuals = fit_chart(episodes, 64)
    assert chart.kinds == ("circle",) and not residuals[0].shared
    assert chart.origin[0].tolist() == pytest.approx([0.1, -0.2], abs=1e-3)


def test_angles_differ_by_the_shorter_way() -> None:
    chart = Chart(["circle", "line"])
    found = chart.nearest(torch.tensor([[6.0, 6.0], [-3.5, -3.5]]))
    turn = 2 * np.pi
    torch.testing.assert_close(found, torch.tensor([[6.0 - turn, 6.0], [-3.5 + turn, -3.5]]))


def test_a_leap_is_noticed() -> None:
    points = np.cumsum(np.full((1, 40, 1, 2), 0.01), 1)
    points[0, 25:] += 0.4  # another body was taken for it
    good = trusted_steps(points, np.ones((1, 40, 1), bool), np.array([39]))
    assert np.flatnonzero(~good[0]).tolist() == [25]


def test_a_body_that_mostly_rests_is_no_part_of_the_background() -> None:
    places = apart(80, 1)
    places[20:] = torch.tensor([0.1, -0.3]) + 0.01 * places[20:]  # three quarters of the frames
    frames = discs(places, COLOURS[:1])
    assert float(frames.median(0).values.amax()) > 0.5
    found = find_bodies(frames)
    assert found.counts == [1] and float(found.background.amax()) < 0.03
    assert worst(reader_of(frames)(frames).points, places) < 0.06


@pytest.mark.parametrize("textured", [False, True])
def test_a_disc_that_mostly_covers_the_middle_of_its_way_is_no_part_of_the_background(
    textured: bool,
) -> None:
    generator = torch.Generator().manual_seed(0)
    reach = (0.02 + 0.2 * torch.rand(300, generator=generator)).sqrt()
    turn = 2.0 * np.pi * torch.rand(300, generator=generator)
    places = torch.stack([reach * turn.cos(), torch.zeros(300)], 1).unsqueeze(1)
    behind = texture() if textured else None
    frames = discs(places, COLOURS[:1], 0.0 if behind is None else behind, 4.0)
    truth = torch.zeros(3, SIZE, SIZE) if behind is None else behind
    covered = (frames - truth).norm(dim=1) > 0.1
    assert float(covered.float().mean(0).max()) > 0.6
    found = find_bodies(frames)
    assert found.counts == [1] and len(found.colours) == 1
    assert float((found.background - truth).norm(dim=0).max()) < 0.1
    assert worst(reader_of(frames)(frames).points, places) < 0.1
