"""Scores from Python: the same as the command's, and differentiable where that is asked for."""

from __future__ import annotations

import re
import subprocess
import sys

import numpy as np
import pytest
import torch
from command_line import succeed
from miniatures import write_image
from PIL import Image
from torch import nn

import latentiqa
from latentiqa.backbones.addresses import Layers
from latentiqa.data.images import read_image
from latentiqa.data.views import Centre, GridCrops, RandomCrops, ShortSide, Square
from latentiqa.errors import ConfigError, DataError
from latentiqa.guidance import PMG
from latentiqa.heads import MLPHead, RidgeHead
from latentiqa.methods.lgdm import LGDM
from latentiqa.methods.psi import PsiFeatures
from latentiqa.methods.scorer import Scorer
from latentiqa.metric import Metric
from latentiqa.perceptual.efficientnet import EfficientNetFeatures
from latentiqa.perceptual.nss import NSS
from latentiqa.trajectory import Timesteps


@pytest.fixture
def metric(embedded):
    return latentiqa.load_metric()


@pytest.fixture
def differentiable(embedded):
    return latentiqa.load_metric(differentiable=True)


@pytest.fixture
def photos(tmp_path):
    """Five files of different sizes, one in a deeper folder."""
    folder = tmp_path / "photos"
    for i in range(4):
        write_image(folder / f"{i}.png", i, size=(40 + 8 * i, 90 - 10 * i))
    write_image(folder / "deeper" / "4.png", 4, size=(64, 64))
    return folder


def test_importing_the_package_is_light():
    code = (
        "import latentiqa, sys\n"
        "assert {'Metric', 'load_metric', 'score', '__version__'} <= set(dir(latentiqa))\n"
        "assert not {'torch', 'hydra', 'omegaconf'} & set(sys.modules)\n"
        "latentiqa.scores"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert "module 'latentiqa' has no attribute 'scores'" in done.stderr
    assert "AssertionError" not in done.stderr


def test_files_have_the_scores_of_the_command(embedded, photos, tmp_path):
    import csv

    table = tmp_path / "scores.csv"
    succeed("score", str(photos), f"run={embedded}", f"output={table}")
    with table.open(newline="") as file:
        expected = {row["name"]: float(row["score"]) for row in csv.DictReader(file)}
    assert len(set(expected.values())) == 5

    found = latentiqa.score(photos, batch_size=2)
    assert isinstance(found, dict)
    assert found == pytest.approx(expected, rel=1e-6)
    assert list(found) == sorted(found, key=lambda name: name.split("/"))

    paths = sorted(expected, reverse=True)
    listed = latentiqa.score(paths, run=embedded, batch_size=1)
    assert listed == pytest.approx([expected[path] for path in paths], rel=1e-6)
    assert latentiqa.score(paths[0]) == pytest.approx(expected[paths[0]], rel=1e-6)

    metric = latentiqa.load_metric(embedded / "results.json")
    (score,) = metric(read_image(paths[1])[None], [paths[1].rpartition("/")[2]])
    assert score.item() == pytest.approx(expected[paths[1]], rel=1e-6)


def test_pixels_have_one_score_however_they_come(metric, embedded, tmp_path):
    path = write_image(tmp_path / "a.png", 7, size=(70, 50))
    image = Image.open(path)
    array, tensor = np.asarray(image), read_image(path)
    same = [image, array, array / 255, (array / 255).astype(np.float32), tensor, tensor.double()]
    same.append(tensor.clone().requires_grad_())
    expected = metric(tensor[None]).item()
    assert latentiqa.score(same) == pytest.approx([expected] * 7, rel=1e-6)
    for one in (image, array, tensor):
        assert latentiqa.score(one) == pytest.approx(expected, rel=1e-6)
    for batch in (np.stack([array, array]), torch.stack([tensor, tensor])):
        assert latentiqa.score(batch) == pytest.approx([expected] * 2, rel=1e-6)
    assert latentiqa.score([]) == []


def test_names_seed_the_noise_as_file_names_do(metric, pictures):
    image, names = pictures
    scores = metric(image)
    assert scores.shape == (8,)
    assert len(set(scores.tolist())) == 8
    torch.testing.assert_close(metric(image.flip(0)).flip(0), scores)
    torch.testing.assert_close(metric(image[:1].expand(3, -1, -1, -1)), scores[:1].expand(3))
    named = metric(image, names)
    assert not torch.isclose(named, scores, rtol=1e-4).all()
    torch.testing.assert_close(metric(image[2:3], names[2:3]), named[2:3])


def test_any_size_and_dtype(metric):
    image = torch.rand(2, 3, 37, 120, generator=torch.Generator().manual_seed(0))
    scores = metric(image)
    torch.testing.assert_close(metric(torch.cat([*map(Square(64), image)])), scores)
    torch.testing.assert_close(metric(image.double()), scores)
    assert metric(image.half()).dtype == torch.float32
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(metric(image), scores)


def scorer_of(micro64, pictures) -> Scorer:
    """Both kinds of extractors, in float32."""
    lgdm = LGDM(micro64.float(), Timesteps([60, 20]), Layers(["mid.*"]))
    extractors = [lgdm, PsiFeatures("nss", NSS())]
    return Scorer(extractors, ridge(extractors, *pictures))


@pytest.mark.parametrize("views", [RandomCrops(64, 3), GridCrops(64, 2, short_side=80)])
def test_the_score_is_the_mean_of_the_scores_of_the_views(micro64, pictures, views):
    scorer = scorer_of(micro64, pictures)
    metric = Metric(scorer, views)
    image = torch.nn.functional.interpolate(pictures[0][:3], size=(96, 128), mode="bicubic")
    image, names = image.clamp(0, 1), ["a.png", "b.png", "c.png"]
    by_hand = [
        scorer(crop[None], [f"{name}#{k}"]).item()
        for picture, name in zip(image, names, strict=True)
        for k, crop in enumerate(views(picture, name))
    ]
    assert len(set(by_hand)) == 3 * views.number
    expected = torch.tensor(by_hand).unflatten(0, (3, -1)).mean(dim=1)
    torch.testing.assert_close(metric(image, names), expected, rtol=1e-4, atol=1e-5)
    for batch_size in (1, 4, 100):
        each = list(metric.each(zip(names, image, strict=True), batch_size))
        assert each == pytest.approx(expected.tolist(), rel=1e-4)
    backwards = list(metric.each(zip(names[::-1], image.flip(0), strict=True)))
    assert backwards[::-1] == pytest.approx(expected.tolist(), rel=1e-4)


def test_pictures_of_any_shapes_are_scored_one_after_the_other(micro64, pictures):
    scorer = scorer_of(micro64, pictures)
    metric = Metric(scorer, ShortSide(64))
    shapes = [(70, 140), (70, 140), (140, 70), (64, 64)]
    images = [torch.rand(3, *shape) for shape in shapes]
    named = [(f"{i}.png", image) for i, image in enumerate(images)]
    expected = [metric(image[None], [name]).item() for name, image in named]
    assert list(metric.each(named, batch_size=4)) == pytest.approx(expected, rel=1e-4)
    assert len(set(expected)) == 4


def test_what_it_tells_of_itself(metric, embedded, differentiable):
    import json

    test = json.loads((embedded / "results.json").read_text())["metrics"]["test"]
    assert metric.srcc == test["srcc"]
    assert metric.trained_on == "18 photos of scores (seed-0 split)"
    assert metric.higher_is_better is True
    assert repr(metric) == (
        "Metric(LGDM on folder + nss, ridge; trained on 18 photos of scores (seed-0 split); "
        f"test SRCC {test['srcc']:.3f}; higher is better)"
    )
    assert repr(differentiable) == repr(metric).removesuffix(")") + "; differentiable)"


def test_it_is_a_plain_frozen_module(differentiable):
    model = nn.ModuleDict({"metric": differentiable, "own": nn.Linear(2, 2)})
    trained = [name for name, value in model.named_parameters() if value.requires_grad]
    assert trained == ["own.weight", "own.bias"]
    assert not any(module.training for module in differentiable.modules())
    assert {tensor.device.type for tensor in differentiable.to("meta").state_dict().values()} == {
        "meta"
    }
    assert differentiable.device.type == "meta"


def test_training_mode_around_it_changes_nothing(metric, pictures):
    image, _ = pictures
    expected = metric(image)
    nn.ModuleList([metric]).train()
    assert torch.equal(metric(image), expected)


def test_no_graph_unless_it_is_asked_for(metric, differentiable, pictures):
    image = pictures[0][:1].clone().requires_grad_()
    assert not metric(image).requires_grad
    assert differentiable(image).requires_grad
    assert torch.equal(metric(image), differentiable(image).detach())
    with torch.no_grad():
        assert not differentiable(image).requires_grad


def test_the_first_call_may_be_in_inference_mode(differentiable, pictures):
    image = pictures[0][:1]
    with torch.inference_mode():
        expected = differentiable(image).clone()
    score = differentiable(image.clone().requires_grad_())
    score.sum().backward()
    assert torch.equal(score.detach(), expected)


def ridge(extractors, image, names) -> RidgeHead:
    """A head with weights of either sign on all features."""
    x = [extractor.hyperfeatures(image, names) for extractor in extractors]
    x = torch.cat([value for features in x for value in features.values()], dim=1)
    y = torch.rand(len(x), generator=torch.Generator().manual_seed(0))
    head = RidgeHead(alphas=[1.0])
    head.fit(x, y, x, y)
    return head


def mlp(extractors, image, names) -> MLPHead:
    x = [extractor.hyperfeatures(image, names) for extractor in extractors]
    x = torch.cat([value for features in x for value in features.values()], dim=1)
    y = torch.rand(len(x), generator=torch.Generator().manual_seed(0))
    head = MLPHead(hidden=(16,), epochs=5)
    head.fit(x, y, x, y)
    return head


EXTRACTORS = {
    # Features of the last step alone: their gradient passes the U-Net of the first one as well.
    "lgdm": lambda backbone: [
        LGDM(backbone, Timesteps([600, 20], use=[20]), Layers(["up.*"]), pooling="mean_std")
    ],
    "nss": lambda _: [PsiFeatures("nss", NSS())],
    "efficientnet": lambda _: [
        PsiFeatures("efficientnet", EfficientNetFeatures(["block.0", "block.2"]), "mean_std")
    ],
}


@pytest.mark.parametrize("head", [ridge, mlp])
@pytest.mark.parametrize("kind", EXTRACTORS)
@pytest.mark.parametrize("views", [Square(64), Centre(64)], ids=["square", "centre"])
def test_the_gradient_is_that_of_finite_differences(micro64, pictures, kind, head, views):
    """Along the gradient, where a step of float32 tells most, and along a random direction."""
    image, names = pictures
    extractors = EXTRACTORS[kind](micro64)
    scorer = Scorer(extractors, head(extractors, image, names))
    metric = Metric(scorer, views, differentiable=True)
    # Away from black and white, where the resized picture is clipped.
    image = torch.nn.functional.interpolate(0.25 + 0.5 * image[:1], size=(72, 80)).double()
    (gradient,) = torch.autograd.grad(metric(image.requires_grad_()).sum(), image)
    assert gradient.isfinite().all()
    random = torch.randn(image.shape, generator=torch.Generator().manual_seed(1)).double()
    unit = gradient / gradient.norm()
    for direction in (unit, unit + 2 * random / random.norm()):
        step = 1e-4 / direction.abs().max()
        with torch.no_grad():
            rise = metric(image + step * direction) - metric(image - step * direction)
        slope = rise.item() / (2 * step.item())
        assert slope == pytest.approx((gradient * direction).sum().item(), rel=0.03)


def test_the_gradient_reaches_what_the_crops_see():
    nss = PsiFeatures("nss", NSS())
    random = torch.rand(8, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    scorer = Scorer([nss], ridge([nss], random, [""] * 8))
    image = torch.rand(1, 3, 32, 96, generator=torch.Generator().manual_seed(1))
    crops = (image[..., :32], image[..., 64:])
    metric = Metric(scorer, GridCrops(32, crops=2), differentiable=True)
    (found,) = torch.autograd.grad(metric(image.requires_grad_()).sum(), image)
    assert torch.equal(found[..., 32:64], torch.zeros(1, 3, 32, 32))
    for crop, part in zip(crops, (found[..., :32], found[..., 64:]), strict=True):
        crop = crop.clone().requires_grad_()
        (alone,) = torch.autograd.grad(scorer(crop, [""]).sum() / 2, crop)
        torch.testing.assert_close(part, alone, rtol=1e-4, atol=1e-7)


def test_gradient_ascent_raises_the_score(differentiable, pictures):
    image = (0.25 + 0.5 * pictures[0][:2]).requires_grad_()
    before = differentiable(image)
    for _ in range(5):
        (gradient,) = torch.autograd.grad(differentiable(image).sum(), image)
        step = 0.01 * gradient / gradient.abs().amax(dim=(1, 2, 3), keepdim=True)
        image = (image + step).detach().clamp(0, 1).requires_grad_()
    assert (differentiable(image) > before).all()


def test_a_loss_reaches_the_model_that_made_the_picture(differentiable):
    model = nn.Conv2d(3, 3, 3, padding=1)
    image = torch.rand(1, 3, 48, 48, generator=torch.Generator().manual_seed(0))
    (-differentiable(model(image).sigmoid())).mean().backward()
    assert model.weight.grad is not None
    assert model.weight.grad.abs().sum() > 0


def test_a_guided_scorer_is_not_differentiable(tiny, pictures):
    lgdm = LGDM(tiny, Timesteps([60, 20]), Layers(["mid.*"]), PMG())
    scorer = Scorer([lgdm], ridge([lgdm], *pictures))
    with pytest.raises(ConfigError, match=r"lgdm is guided.*second derivatives.*guidance=none"):
        Metric(scorer, Square(64), differentiable=True)
    metric = Metric(scorer, Square(64))
    assert metric(pictures[0].clone().requires_grad_()).shape == (8,)
    assert repr(metric) == (
        "Metric(lgdm, RidgeHead; trained on unknown pictures; test SRCC unknown; higher is better)"
    )


@pytest.mark.parametrize(
    ("image", "told"),
    [
        (np.zeros((1, 3, 8, 8)), "image=ndarray (1, 3, 8, 8): expected a tensor (B, 3, H, W)"),
        (torch.zeros(3, 8, 8), "image[None] makes a batch"),
        (torch.zeros(1, 8, 8, 3), "image=Tensor (1, 8, 8, 3): expected a tensor (B, 3, H, W)"),
        (torch.zeros(0, 3, 8, 8), "image=Tensor (0, 3, 8, 8)"),
        (torch.zeros(1, 3, 8, 8, dtype=torch.uint8), "image.dtype=torch.uint8: expected"),
        (torch.full((1, 3, 8, 8), 255.0), "values from 255 to 255: expected finite ones in [0, 1]"),
        (torch.full((1, 3, 8, 8), -0.5), "values from -0.5 to -0.5"),
        (torch.full((1, 3, 8, 8), torch.nan), "values from nan to nan"),
        (torch.full((1, 3, 8, 8), torch.inf), "values from inf to inf"),
    ],
)
def test_other_tensors_are_refused(image, told):
    nss = PsiFeatures("nss", NSS())
    random = torch.rand(8, 3, 32, 32)
    metric = Metric(Scorer([nss], ridge([nss], random, [""] * 8)), Square(32))
    with pytest.raises(ConfigError, match=re.escape(told)):
        metric(image)
    if isinstance(image, torch.Tensor) and len(image.shape) == 4 and len(image):
        with pytest.raises(ConfigError, match=r"names='x': expected a list"):
            metric(random[:1], "x")
        with pytest.raises(ConfigError, match="1 images but 2 names"):
            metric(random[:1], ["x", "y"])


@pytest.mark.parametrize(
    ("picture", "told"),
    [
        (np.zeros((3, 8, 9)), "images[1]: ndarray (3, 8, 9): expected files, images of Pillow"),
        (np.zeros((8, 8), np.uint8), "images[1]: ndarray (8, 8): expected"),
        (np.full((8, 8, 3), 255.0), "images[1]: image has values from 255 to 255"),
        (np.zeros((8, 8, 3), np.uint16), "images[1]: image.dtype=torch.uint16: expected floating"),
        (torch.zeros(3, 8, 8, dtype=torch.uint8), "images[1]: image.dtype=torch.uint8"),
        (torch.zeros(8, 8, 3), "images[1]: image=Tensor (1, 8, 8, 3): expected"),
        (None, "images[1]: NoneType: expected files"),
        (Image.new("F", (8, 8)), "images[1]: Image (8, 8): floating point pixels have no agreed"),
    ],
)
def test_other_pictures_are_named_by_their_place(embedded, picture, told):
    with pytest.raises((ConfigError, DataError), match=re.escape(told)):
        latentiqa.score([np.zeros((8, 8, 3), np.uint8), picture])


def test_misuse_ends_before_anything_is_loaded(embedded, photos, tmp_path, monkeypatch):
    def loaded(*_arguments, **_keywords):
        raise AssertionError("loads a backbone")

    monkeypatch.setattr("latentiqa.backbones.source.BackboneSource.load", loaded)
    (photos / "bad.png").write_text("no picture")
    for images, told in (
        (photos, r"1 of 6 files cannot be read:\n.*bad.png: not a picture"),
        ([photos / "0.png", "nowhere.png"], r"1 of 2 files .*\n.*nowhere.png: No such file"),
        ([photos], r"1 of 1 files .*\n.*photos: Is a directory"),
    ):
        with pytest.raises(DataError, match=told):
            latentiqa.score(images)
    with pytest.raises(DataError, match=r"0.png: refused: 40 x 90 pixels; more than 3599 pixels"):
        latentiqa.score(photos / "0.png", max_pixels=3599)
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="no pictures there"):
        latentiqa.score(tmp_path / "empty")
    for arguments, told in (
        ({"images": 3}, "images=int: expected files"),
        ({"images": [], "batch_size": 0}, "batch_size=0: expected"),
        ({"images": [], "max_pixels": 0}, "max_pixels=0: expected"),
        ({"images": [], "device": "gpu0"}, "device='gpu0': expected"),
        ({"images": [], "run": "nowhere"}, "run=nowhere: no results.json there"),
    ):
        with pytest.raises(ConfigError, match=told):
            latentiqa.score(**arguments)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ConfigError, match="device='cuda': this PyTorch sees no GPU"):
        latentiqa.load_metric(device="cuda")


def test_without_a_scorer_in_the_package_the_way_out_is_told(tmp_path, monkeypatch):
    monkeypatch.setattr("latentiqa.commands.trained.PACKAGED", tmp_path / "scorers")
    with pytest.raises(ConfigError, match=r"run=null: .* carries no scorer .*latentiqa train"):
        latentiqa.load_metric()
