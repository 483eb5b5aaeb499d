from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from lightning import Trainer
from PIL import Image
from torch import nn
from torch.utils.data import DataLoader
from transformers import (
    AutoModel,
    ConvNextConfig,
    EfficientNetConfig,
    EfficientNetImageProcessorPil,
    MobileNetV2Config,
)

from latentiqa.errors import ConfigError, DataError, LatentiqaError
from latentiqa.metrics import srcc
from latentiqa.student.network import Design, Student
from latentiqa.student.saving import load_student
from latentiqa.student.start import begin
from latentiqa.student.teachers import Scale
from latentiqa.student.training import Recipe, StudentTraining, Terms
from latentiqa.student.trunks import LiteTrunk, TransformersTrunk
from latentiqa.training.saving import save_rater

CONFIGS = {
    # EfficientNet-B7 as the paper's, but narrower and less deep.
    "efficientnet": EfficientNetConfig(
        width_coefficient=0.25, depth_coefficient=0.2, hidden_dim=320
    ),
    "convnext": ConvNextConfig(hidden_sizes=[8, 8, 16, 16], depths=[1, 1, 1, 1]),
    "mobilenet_v2": MobileNetV2Config(depth_multiplier=0.25, image_size=64),
}
CHANNELS = {"efficientnet": 320, "convnext": 16, "mobilenet_v2": 1280}


def small(**changes) -> Design:
    """A quick trunk of random weights and a small map."""
    trunk = TransformersTrunk(config=CONFIGS["convnext"].to_dict())
    return Design(**{"trunk": trunk, "width": 8, "channels": 4, "side": 8} | changes)


def batch_of(images: torch.Tensor, target: torch.Tensor, **more) -> dict:
    names = [f"{i}.png" for i in range(len(images))]
    return {"image": [images[:3], images[3:]], "name": names, "target": target, **more}


def training_of(student: Student, recipe: Recipe | None = None, **terms) -> StudentTraining:
    training = StudentTraining(student, recipe or Recipe(), Terms(**terms), steps_an_epoch=1)
    training.logged = {}
    training.log = lambda name, value, **_options: training.logged.update({name: value})
    return training


@pytest.mark.parametrize("kind", CONFIGS)
def test_networks_of_transformers_are_read_from_a_folder(kind, tmp_path, pictures):
    with torch.random.fork_rng(devices=[]):
        net = AutoModel.from_config(CONFIGS[kind]).eval()
    net.save_pretrained(tmp_path / "net")
    normal = {"image_mean": [0.1, 0.2, 0.3], "image_std": [0.5, 0.6, 0.7]}
    (tmp_path / "net" / "preprocessor_config.json").write_text(json.dumps(normal))
    student = Student(small(trunk=TransformersTrunk(source=str(tmp_path / "net"))))
    assert student.trunk.channels == (CHANNELS[kind],)
    image = pictures[0][:2]
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in normal.values())
    with torch.no_grad():
        expected = net((image - mean) / std).last_hidden_state
        torch.testing.assert_close(student.trunk(image)[0], expected)
    # Once trained it needs the folder no more.
    save_rater(student, tmp_path / "student", {"architecture": student.trunk.architecture})
    (tmp_path / "net" / "model.safetensors").unlink()
    again, _ = load_student(tmp_path / "student", student.design)
    with torch.no_grad():
        assert torch.equal(again(image), student(image))


def test_the_paper_s_head_is_as_its_code_has_it():
    """81 M parameters with EfficientNet-B7, whose last map is 2560 wide."""
    design = small(score="map", width=512, channels=8, side=64)
    student = Student(design)
    shapes = [tuple(p.shape) for p in student.regress.parameters() if p.ndim == 2]
    assert shapes == [(512, 8 * 64 * 64), (512, 512), (1, 512)]
    [drawn] = [m for m in student.quality.modules() if isinstance(m, nn.ConvTranspose2d)]
    assert (drawn.out_channels, drawn.kernel_size, drawn.stride) == (8, (3, 3), (2, 2))
    score, quality = student.both(torch.rand(1, 3, 64, 96))
    assert quality.shape == (1, 8, 64, 64)
    assert torch.equal(score, student.regress(quality.flatten(1)).squeeze(1))


@pytest.mark.parametrize("statistics", [False, True])
def test_all_that_scores_depend_on_is_trained_and_nothing_else(statistics, pictures):
    student = Student(Design(LiteTrunk(), batch_statistics=statistics), quality=True).train()
    before = {k: v.clone() for k, v in student.state_dict().items()}
    training = training_of(student, Recipe(lr=1e-3), map=1.0)
    more = {"teacher": torch.rand(8), "map": torch.rand(8, 8 * 64 * 64)}
    optimizer = training.configure_optimizers()["optimizer"]
    training.training_step(batch_of(pictures[0], torch.rand(8), **more), 0).backward()
    assert all(p.grad is not None for p in training.parameters() if p.requires_grad)
    optimizer.step()
    changed = {k for k, v in student.state_dict().items() if not torch.equal(v, before[k])}
    assert {
        "regress.linear.weight",
        "quality.draw.weight",
        "trunk.net.net._conv_stem.weight",
    } <= changed
    assert any(key.endswith("running_mean") for key in changed) == statistics


@pytest.mark.parametrize("statistics", [False, True])
def test_batch_norm_keeps_its_mode_in_a_real_training(statistics, pictures, tmp_path):
    trunk = TransformersTrunk(config=CONFIGS["mobilenet_v2"].to_dict())
    student = Student(small(trunk=trunk, batch_statistics=statistics))
    before = {k: v.clone() for k, v in student.state_dict().items() if "running_mean" in k}
    training = StudentTraining(student, Recipe(), Terms(score=0.0), steps_an_epoch=1)
    trainer = Trainer(
        accelerator="cpu", max_steps=2, logger=False, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False, default_root_dir=tmp_path,
    )  # fmt: skip
    batches = [batch_of(pictures[0], torch.rand(8))] * 2
    trainer.fit(training, DataLoader(batches, batch_size=None))  # type: ignore[arg-type]
    assert before
    same = [torch.equal(student.state_dict()[k], v) for k, v in before.items()]
    assert all(same) != statistics


def test_pictures_are_normalised_as_transformers_does_for_efficientnet(tmp_path, pictures):
    """It divides by the deviation twice."""
    with torch.random.fork_rng(devices=[]):
        AutoModel.from_config(CONFIGS["efficientnet"]).save_pretrained(tmp_path)
    processor = EfficientNetImageProcessorPil(do_resize=False, do_center_crop=False)
    processor.save_pretrained(tmp_path)
    trunk = TransformersTrunk(source=str(tmp_path)).build()
    image = (pictures[0][:1] * 255).round() / 255
    pixels = (image[0] * 255).byte().permute(1, 2, 0).numpy()
    expected = processor(Image.fromarray(pixels), return_tensors="pt")["pixel_values"]
    torch.testing.assert_close((image - trunk.mean) / trunk.std, expected, atol=1e-5, rtol=1e-5)


def test_the_loss_is_the_weighted_sum_of_its_terms(pictures):
    """Pictures without a human score count in the teacher's terms alone."""
    student = Student(small(), quality=True)
    target = torch.tensor([0.1, 0.9, 0.3, 0.5, *[float("nan")] * 4])
    more = {"teacher": torch.rand(8), "map": torch.rand(8, 4 * 8 * 8)}
    training = training_of(student, mos=2.0, score=0.5, map=3.0)
    with torch.no_grad():
        loss = training.training_step(batch_of(pictures[0], target, **more), 0)
        pred, quality = student.both(pictures[0])
    expected = {
        "train/mse": (pred[:4] - target[:4]).square().mean(),
        "train/teacher/mse": (pred - more["teacher"]).square().mean(),
        "train/map": (quality.flatten(1) - more["map"]).square().mean(),
    }
    assert training.logged.keys() == expected.keys()
    for name, value in expected.items():
        torch.testing.assert_close(training.logged[name], value, msg=name)
    weights = torch.tensor([2.0, 0.5, 3.0])
    torch.testing.assert_close(loss, (weights * torch.stack(list(expected.values()))).sum())


def test_sixteen_pictures_are_learnt_by_heart_in_a_few_steps():
    generator = torch.Generator().manual_seed(0)
    image = torch.rand(16, 3, 32, 32, generator=generator)
    image *= torch.rand(16, 1, 1, 1, generator=generator)
    target = torch.linspace(0, 1, 16)[torch.randperm(16, generator=generator)]
    student = Student(small(width=64)).train()
    recipe = Recipe(lr=3e-3, losses={"mse": 1.0, "spearman": 0.1})
    training = training_of(student, recipe, score=0.0)
    optimizer = training.configure_optimizers()["optimizer"]
    batch = batch_of(image, target)
    reached = []
    while len(reached) < 20 and 1 not in reached:
        reached.append(srcc(training(batch).detach(), target))
        for _ in range(4):
            optimizer.zero_grad()
            training.training_step(batch, 0).backward()
            optimizer.step()
    assert reached[0] < 0.9
    assert reached[-1] == 1, reached


class Pictures:
    """In the place of a `RatedModule`."""

    def __init__(self, image, target, val_target, **more):
        self.train, self.batch_size, self.sets = target, len(target), (image, target, val_target)
        self.more = more

    def train_dataloader(self):
        image, target, _ = self.sets
        while True:
            yield batch_of(image, target, **self.more)

    def val_dataloader(self):
        image, _, target = self.sets
        yield batch_of(image, target)


@pytest.mark.parametrize(
    ("terms", "teacher_s"), [(Terms(), 0.5), (Terms(mos=3.0), 0.25), (Terms(score=0.0), 0.0)]
)
def test_a_student_begins_as_a_ridge_of_its_features(pictures, terms, teacher_s):
    """Its targets are the weighted means of both, and those of the teacher where it is alone."""
    student = Student(Design(LiteTrunk(), pooling="mean"))
    image = pictures[0]
    human = torch.linspace(0, 1, 8)
    human[6:] = float("nan")
    teacher = human.flip(0).nan_to_num(0.3)
    shown = Pictures(image, human, torch.linspace(0.2, 0.7, 8) ** 2, teacher=teacher)
    report = begin(student, shown, terms)
    with torch.no_grad():
        x = student.features(image)
        scores = student(image)
    target = torch.where(human.isnan(), teacher, (1 - teacher_s) * human + teacher_s * teacher)
    if not terms.score:
        target = human[:6]
    x, y = x.double().numpy(), target.double().numpy()
    fitted = x[: len(y)]
    mean, scale = fitted.mean(0), np.where(np.ptp(fitted, 0) > 1e-6, fitted.std(0), 1)
    scaled = (x - mean) / scale
    gram = scaled[: len(y)].T @ scaled[: len(y)] + report["alpha"] * np.eye(x.shape[1])
    weight = np.linalg.solve(gram, scaled[: len(y)].T @ (y - y.mean()))
    np.testing.assert_allclose(scores, scaled @ weight + y.mean(), atol=1e-4)
    assert report["val_srcc"] == pytest.approx(srcc(scores, shown.sets[2]))


def test_scales_of_teachers_agree_after_they_are_brought_to_one():
    target = torch.tensor([0.2, 0.4, 0.9])
    percent, other = 100 * target + 3, target**2
    torch.testing.assert_close(Scale.between(percent, target)(percent), target)
    mapped = Scale.between(other, target)(other)
    assert mapped.mean().item() == pytest.approx(target.mean().item())
    assert mapped.std().item() == pytest.approx(target.std().item())
    # A teacher that is wrong is not turned round.
    assert Scale.between(-target, target).slope > 0
    with pytest.raises(DataError, match="says the same of all training pictures"):
        Scale.between(torch.ones(3), target)


def test_weights_of_another_design_are_refused(tmp_path):
    student = Student(small())
    save_rater(student, tmp_path / "student", {"architecture": student.trunk.architecture})
    with pytest.raises(ConfigError, match=r"do not fit the design: regress\.linear"):
        load_student(tmp_path / "student", small(pooling="mean"))
    with pytest.raises(DataError, match="no trained nowhere there"):
        load_student(tmp_path / "nowhere", small())


def test_weights_that_are_missing_are_told(tmp_path):
    net = AutoModel.from_config(CONFIGS["convnext"])
    net.save_pretrained(tmp_path)
    (tmp_path / "preprocessor_config.json").write_text("{}")
    with pytest.raises(LatentiqaError, match="expected image_mean and image_std"):
        TransformersTrunk(source=str(tmp_path)).build()


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        (lambda: small(score="x"), "student.score='x': expected pooled or map"),
        (lambda: small(pooling="max"), "pooling='max'"),
        (lambda: small(side=0), "student.side=0: expected an integer >= 1"),
        (lambda: small(batch_statistics=1), "expected true or false"),
        (lambda: small(trunk="lite0"), "expected a LiteTrunk or a TransformersTrunk"),
        (lambda: LiteTrunk(variant="b0"), "one of lite0, lite2"),
        (lambda: TransformersTrunk(), "expected either source"),
        (lambda: TransformersTrunk(config={"model_type": "x"}), "model_type='x'"),
        (lambda: Terms(map=-1.0), "terms.map=-1.0: expected a weight >= 0"),
        (lambda: Terms(mos=0, score=0, map=1), "nothing teaches it to score"),
    ],
)
def test_wrong_designs_are_explained(wrong, told):
    with pytest.raises(ConfigError, match=told):
        wrong()
