"""Priors, rules, stops, tiles, and one picture from beginning to end."""

from __future__ import annotations

import csv
import math

import pytest
import quality_models
import torch
from miniatures import write_image

from latentiqa.backbones.stable_diffusion import StableDiffusion
from latentiqa.enhance.ascent import Adam, Ascent, ClippedMomentum, Objective, ascend
from latentiqa.enhance.edict import EDICT
from latentiqa.enhance.enhancer import Enhancer
from latentiqa.enhance.fidelity import MSE, NLPD, Fidelity
from latentiqa.enhance.inversion import DDIM
from latentiqa.enhance.prior import (
    FunctionPrior,
    Logistic,
    PsiPrior,
    RunPrior,
    fit_scale,
    named,
    rate,
)
from latentiqa.enhance.space import Latents, Pixels
from latentiqa.enhance.tiles import Tiles, Tiling
from latentiqa.errors import ConfigError, DataError, LatentiqaError
from latentiqa.perceptual.nss import NSS
from latentiqa.perceptual.sd import BackboneFeatures

CPU = torch.device("cpu")
SCALE = Logistic(0.5, 0.1)
SPACES = {
    "edict": Latents(EDICT(steps=2)),
    "residual": Latents(EDICT(steps=2), keep_residual=True),
    "middle": Latents(EDICT(steps=4, at=1)),
    "ddim": Latents(DDIM(steps=2)),
    "z0": Latents(DDIM(at=0)),
    "pixels": Pixels(),
}


@pytest.fixture(scope="module")
def micro(micro_folder):
    return StableDiffusion.from_folder(micro_folder)


def objective(
    image, space=None, backbone=None, weight=1.0, quality=quality_models.brightness, mse=1.0
):
    latents = None if space is None else space.latents(backbone, image)
    return Objective(quality, SCALE, weight, Fidelity({"mse": MSE(weight=mse)}, image, latents))


@pytest.mark.parametrize("name", SPACES)
@pytest.mark.parametrize("rule", [ClippedMomentum(), Adam(0.02)], ids=["momentum", "adam"])
def test_the_prior_rises_in_every_space_by_every_rule(micro, pictures, name, rule):
    image, space = pictures[0][:1], SPACES[name]
    goal = objective(image, space, micro)
    way = ascend(micro, space, Ascent(rule, iterations=2, stop_at=None), goal, image)
    assert [row["iteration"] for row in way.rows] == list(range(3))
    assert way.ended == "iterations"
    assert way.best > 0
    first, best = way.rows[0], way.rows[way.best]
    assert best["objective"] > first["objective"]
    assert best["prior"] > first["prior"]
    for row in way.rows:
        assert row["objective"] == pytest.approx(row["mapped"] - row["distance"], abs=1e-4)
    found = quality_models.brightness(way.picture[None]).item()
    assert found == pytest.approx(best["prior"], rel=1e-5)
    assert way.picture.shape == image.shape[1:]


def test_clipped_momentum_is_written_out():
    move = ClippedMomentum(gain=0.5, clip=0.1, momentum=0.9, step=2.0).begin()
    z = move(torch.zeros(3), torch.tensor([0.1, 1.0, -1.0]))
    torch.testing.assert_close(z, torch.tensor([0.1, 0.2, -0.2]))
    z = move(z, torch.tensor([0.0, 0.0, 0.02]))
    torch.testing.assert_close(z, torch.tensor([0.19, 0.38, -0.36]))
    # Another ascent begins without that memory.
    again = ClippedMomentum(gain=0.5, clip=0.1).begin()
    torch.testing.assert_close(again(torch.zeros(1), torch.ones(1)), torch.tensor([0.2]))


def test_adam_is_pytorchs():
    move, z = Adam(0.1).begin(), torch.tensor([1.0, -2.0])
    x = z.clone().requires_grad_()
    optimiser = torch.optim.Adam([x], lr=0.1, maximize=True)
    for _ in range(3):
        z = move(z, 2 * z)
        x.grad = 2 * x.detach()
        optimiser.step()
    torch.testing.assert_close(z, x.detach())


def test_the_gradient_is_of_both_pictures_of_the_pair(micro, pictures):
    image, space = pictures[0][:1], Latents(EDICT(at=0))
    goal = objective(image, space, micro)
    z = space.start(micro, image).requires_grad_()
    total, parts = goal(*space.pictures(micro, z, 0.0))
    assert total.item() == pytest.approx(2 * parts["objective"], rel=1e-5)
    (gradient,) = torch.autograd.grad(total, z)
    torch.testing.assert_close(gradient[0], gradient[1])
    assert gradient.abs().max() > 0


def test_with_the_residual_an_ascent_begins_at_the_picture_itself(micro, pictures):
    image = pictures[0][:1]
    lossy, kept = (Latents(EDICT(steps=2), keep_residual=keep) for keep in (False, True))
    z = kept.start(micro, image)
    first, second = kept.pictures(micro, z, kept.residual(micro, image))[0]
    torch.testing.assert_close(first, image[0], atol=1e-5, rtol=0)
    torch.testing.assert_close(second, image[0], atol=1e-5, rtol=0)
    decoded = lossy.pictures(micro, z, lossy.residual(micro, image))[0]
    assert (decoded[0] - image[0]).abs().mean() > 0.01


def test_an_ascent_ends_when_it_is_enough_and_when_nothing_is_gained(micro, pictures):
    image = pictures[0][:1]
    goal = objective(image)
    fast = ClippedMomentum(gain=1e6, clip=0.01)
    way = ascend(micro, Pixels(), Ascent(fast, 50, stop_at=90.0), goal, image)
    assert way.ended == "reached"
    assert way.rows[-1]["mapped"] >= 90 > way.rows[-2]["mapped"]
    flat = objective(image, quality=lambda x: 0 * quality_models.brightness(x))
    way = ascend(micro, Pixels(), Ascent(fast, 50, patience=3), flat, image)
    assert (way.ended, way.best, len(way.rows)) == ("no progress", 0, 4)
    assert torch.equal(way.picture, image[0])


def test_the_best_of_the_way_is_kept_when_the_ascent_goes_too_far(micro, pictures):
    image = pictures[0][:1]
    goal = objective(image, weight=0.1, mse=1000.0)  # soon the distance weighs more
    rule = ClippedMomentum(gain=1e6, clip=0.002)
    way = ascend(micro, Pixels(), Ascent(rule, 12, patience=None), goal, image)
    values = [row["objective"] for row in way.rows]
    assert 0 < way.best < 12
    assert values[way.best] == max(values) > values[-1]


def test_judges_rate_now_and_then_and_at_the_end(micro, pictures):
    image = pictures[0][:1]
    ascent = Ascent(ClippedMomentum(), iterations=5, judge_every=3, stop_at=None)
    judges = {"dark": quality_models.darkness}
    way = ascend(micro, Pixels(), ascent, objective(image), image, judges, keep_every=2)
    assert [row["dark"] is not None for row in way.rows] == [1, 0, 0, 1, 0, 1]
    assert way.rows[3]["dark"] == pytest.approx(-way.rows[3]["prior"])
    assert list(way.frames) == [0, 2, 4, 5]
    assert torch.equal(way.frames[0], (image[0] * 255).round().to(torch.uint8))


def test_a_model_that_answers_nonsense_is_told(micro, pictures):
    image = pictures[0][:1]
    goal = objective(image, quality=quality_models.nothing)
    with pytest.raises(LatentiqaError, match="expected one finite score each"):
        ascend(micro, Pixels(), Ascent(ClippedMomentum()), goal, image)
    with pytest.raises(LatentiqaError, match=r"answered \(\) .*to 1 pictures"):
        rate(lambda x: x.mean(), image)


def test_a_fitted_scale_is_the_share_that_is_rated_lower():
    generator = torch.Generator().manual_seed(0)
    uniform = torch.rand(4000, generator=generator, dtype=torch.float64)
    scores = 3 + 0.5 * torch.log(uniform / (1 - uniform))
    scale = Logistic.fit(scores.tolist(), "these")
    assert scale.centre == pytest.approx(3, abs=0.05)
    assert scale.spread == pytest.approx(0.5, abs=0.02)
    mapped = scale(scores)
    assert (mapped / 100 - uniform).abs().max() < 0.03
    assert mapped.min() > 0
    with pytest.raises(DataError, match="two or more pictures with different scores"):
        Logistic.fit([1.0, 1.0], "these")


def test_a_scale_is_fitted_on_pictures_or_comes_with_a_run(tmp_path):
    paths = [write_image(tmp_path / f"{i}.png", i) for i in range(4)]
    scale = fit_scale(quality_models.contrast, paths, CPU, 10**6, "four")
    from latentiqa.data.images import read_image

    scores = torch.stack([quality_models.contrast(read_image(p)[None])[0] for p in paths])
    assert scale.centre == pytest.approx(scores.mean().item(), rel=1e-5)
    expected = scores.std(correction=0).item() * math.sqrt(3) / math.pi
    assert scale.spread == pytest.approx(expected, rel=1e-4)
    assert RunPrior(run=str(tmp_path)).scale() is None
    with (tmp_path / "predictions.csv").open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerows([["part", "pred"], ["test", 1.0], ["test", 3.0], ["val", 100.0]])
    assert (found := RunPrior(run=str(tmp_path)).scale()) is not None
    assert found.centre == 2.0
    assert RunPrior(run=str(tmp_path), centre=0.5, spread=1.0).scale() == Logistic(0.5, 1.0)


def test_a_psi_prior_is_the_mahalanobis_distance_to_good_pictures(tmp_path, pictures):
    from latentiqa.data.images import read_image

    for i in range(5):
        write_image(tmp_path / f"{i}.png", i, (40, 40))
    score = PsiPrior(psi=NSS(), good=str(tmp_path), pooling="mean").load(CPU)
    image = pictures[0][:2].clone().requires_grad_()
    found = score(image)
    x = torch.cat(
        [
            torch.cat([*NSS().statistics(read_image(p)[None], "mean").values()], dim=1)
            for p in sorted(tmp_path.iterdir())
        ]
    ).double()
    f = torch.cat([*NSS().statistics(image, "mean").values()], dim=1).double()
    covariance = torch.cov(x.T)
    covariance += 0.1 * covariance.diagonal().mean() * torch.eye(len(covariance))
    apart = f - x.mean(0)
    expected = -(apart @ covariance.inverse() * apart).sum(1).sqrt()
    torch.testing.assert_close(found.double(), expected, rtol=1e-4, atol=1e-4)
    found.sum().backward()
    assert image.grad is not None
    assert image.grad.abs().max() > 0
    good = score(read_image(tmp_path / "0.png")[None])
    assert good.item() > found.max().item()


def test_models_by_a_word():
    assert named("lgdm") == RunPrior(run="lgdm")
    assert named("quality_models:contrast") == FunctionPrior(function="quality_models:contrast")
    assert named("runs/a-1") == RunPrior(run="runs/a-1")
    assert named("runs/a-1/results.json") == RunPrior(run="runs/a-1")


def test_a_callable_is_known_by_the_file_that_it_stands_in(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    module = tmp_path / "my_quality.py"
    module.write_text("def bright(image): return image.mean((1, 2, 3))\n")
    prior = FunctionPrior(function="my_quality:bright")
    before = prior.identity()
    assert before == FunctionPrior(function="my_quality:bright").identity()
    module.write_text("def bright(image): return 2 * image.mean((1, 2, 3))\n")
    assert prior.identity() not in {before, None}
    assert FunctionPrior(function="nowhere_at_all:bright").identity() is None
    image = torch.rand(1, 3, 8, 8)
    loaded = named("quality_models:contrast").load(CPU)
    assert torch.equal(loaded(image), quality_models.contrast(image))


@pytest.mark.parametrize(("height", "width"), [(64, 64), (100, 130), (33, 200), (20, 20)])
def test_tiles_are_blended_back_to_the_picture(height, width):
    tiles = Tiles(height, width, Tiling(64, 16), multiple=32)
    image = torch.rand(3, height, width)
    cut = list(tiles.cut(image))
    assert len(cut) == len(tiles.places)
    assert {tuple(tile.shape[1:]) for tile in cut} == {tiles.size}
    assert all(side % 32 == 0 for side in tiles.size)
    torch.testing.assert_close(tiles.blend(cut), image)


def test_tiles_fade_into_each_other_without_a_seam():
    tiles = Tiles(64, 160, Tiling(64, 16), multiple=64)
    assert tiles.places == [(0, 0), (0, 48), (0, 96)]
    made = [torch.full((3, *tiles.size), float(i)) for i in range(len(tiles.places))]
    blended = tiles.blend(made)
    steps = blended[0, 0].diff()
    assert (steps >= -1e-6).all()
    # An edge would be a step of 1.
    assert steps.max() < 0.2
    whole = Tiles(64, 160, Tiling(None), multiple=64)
    assert (whole.places, whole.size) == ([(0, 0)], (64, 192))


def enhancer(micro, space, **changes):
    ascent = Ascent(ClippedMomentum(gain=1e6, clip=0.01), iterations=2, stop_at=None)
    parts = {"judges": {}, "tiling": Tiling(64, 16), "terms": {"nlpd": NLPD(levels=3)}}
    parts |= {"quality": quality_models.brightness, "scale": SCALE, "weight": 1.0}
    return Enhancer(backbone=micro, space=space, ascent=ascent, **parts | changes)


def test_a_picture_of_odd_size_is_enhanced_in_tiles(micro):
    image = 0.5 * torch.rand(3, 70, 101)
    found = enhancer(micro, Latents(EDICT(steps=1)), keep_every=2)(image)
    assert found.picture.shape == image.shape
    assert {row["tile"] for row in found.rows} == {0, 1, 2, 3}
    frames = list(found.frames())
    assert len(frames) == 2
    assert all(frame.shape == image.shape for frame in frames)
    assert found.ended == ["iterations"] * 4
    rounded = found.picture * 255
    torch.testing.assert_close(rounded, rounded.round())
    assert found.before["prior"] == pytest.approx(image.mean().item(), rel=1e-5)
    assert found.after["prior"] == pytest.approx(found.picture.mean().item(), rel=1e-5)
    assert found.distance is not None
    assert found.distance > 0


@pytest.mark.parametrize(
    ("judges", "expected"),
    [([], None), (["darkness"], True), (["darkness", "brightness"], False)],
)
def test_a_rise_that_no_judge_confirms_is_adversarial(micro, judges, expected):
    models = {name: getattr(quality_models, name) for name in judges}
    found = enhancer(micro, Pixels(), judges=models)(0.5 * torch.rand(3, 64, 64))
    assert found.after["prior"] > found.before["prior"]
    assert found.is_adversarial == expected


def test_after_another_enhancer_fidelity_holds_to_its_picture(micro):
    image, other = torch.full((3, 64, 64), 0.2), torch.full((3, 64, 64), 0.6)
    found = enhancer(micro, Pixels())(image, other)
    assert found.before["prior"] == pytest.approx(0.2)
    assert found.rows[0]["prior"] == pytest.approx(0.6)
    assert found.rows[0]["distance"] == 0
    assert found.picture.mean() > 0.6


@pytest.mark.parametrize(
    ("make", "told"),
    [
        (lambda: ClippedMomentum(gain=0.0), "gain=0.0: expected a number > 0"),
        (lambda: ClippedMomentum(momentum=1.0), "momentum=1.0: expected 0 <= x < 1"),
        (lambda: Adam(-1.0), "rate=-1.0: expected a number > 0"),
        (lambda: Ascent(Adam(), iterations=-1), "iterations=-1: expected an integer >= 0"),
        (lambda: Ascent(Adam(), stop_at=101.0), "stop_at=101.0: expected 0 < x <= 100"),
        (lambda: Ascent(Adam(), patience=0), "patience=0: expected an integer >= 1"),
        (lambda: Logistic(0.0, 0.0), r"spread=0.0: expected finite numbers"),
        (lambda: RunPrior(run="a", centre=1.0), "expected both centre and spread, or neither"),
        (lambda: RunPrior(run="a", weight=0.0), "prior.weight=0.0: expected a number > 0"),
        (lambda: named("no_module:x").load(CPU), "prior.function=no_module:x: .*module:name"),
        (lambda: named("quality_models:NOT_CALLABLE").load(CPU), "expected a callable"),
        (lambda: PsiPrior(psi=BackboneFeatures(), good="x"), "expected a psi with statistics"),
        (lambda: Tiling(64, 32), "tiles.overlap=32: expected less than half of tiles.side=64"),
        (lambda: Tiles(64, 64, Tiling(60, 8), 32), "tiles.side=60: expected a multiple of 32"),
    ],
)
def test_wrong_values(make, told):
    with pytest.raises(ConfigError, match=told):
        make()
