from __future__ import annotations

from collections import Counter
from types import SimpleNamespace

import pytest
import torch

from latentiqa.data.datamodule import RatedModule, Rounds
from latentiqa.dpiqa.training import Recipe
from latentiqa.errors import ConfigError, DataError
from latentiqa.losses import LOSSES
from latentiqa.metrics import srcc
from latentiqa.training.module import RaterTraining
from latentiqa.training.saving import load_state, read_report, save_rater


def batch_of(image, names, target):
    return {"image": [image[:3], image[3:]], "name": names, "target": target}


def test_sixteen_pictures_are_learnt_by_heart_in_a_few_steps(teacher_of):
    generator = torch.Generator().manual_seed(0)
    image = torch.rand(16, 3, 64, 64, generator=generator)
    image *= torch.rand(16, 1, 1, 1, generator=generator)
    target = torch.linspace(0, 1, 16)[torch.randperm(16, generator=generator)]
    teacher = teacher_of(side=4, width=128, narrowing=(64, 32, 8))
    recipe = Recipe(lr=2e-3, losses={"mse": 1.0, "spearman": 0.1})
    training = RaterTraining(teacher, recipe, steps_an_epoch=1)
    training.log = lambda *_args, **_options: None
    optimizer = training.configure_optimizers()["optimizer"]
    batch = batch_of(image, [f"{i}.png" for i in range(16)], target)
    reached = []
    while len(reached) < 16 and 1 not in reached:
        reached.append(srcc(training(batch).detach(), target))
        for _ in range(5):
            optimizer.zero_grad()
            training.training_step(batch, 0).backward()
            optimizer.step()
    assert reached[0] < 0.9
    assert reached[-1] == 1, reached


def test_the_loss_is_the_weighted_sum(teacher_of, pictures):
    recipe = Recipe(losses={"mse": 2.0, "pearson": 0.5, "spearman": 0.0})
    training = RaterTraining(teacher_of(), recipe, steps_an_epoch=1)
    logged = {}
    training.log = lambda name, value, **_options: logged.update({name: value})
    batch = batch_of(*pictures, torch.linspace(0, 1, 8))
    with torch.no_grad():
        loss, pred = training.training_step(batch, 0), training(batch)
    expected = {name: LOSSES[name](pred, batch["target"]) for name in ("mse", "pearson")}
    assert logged.keys() == {"train/mse", "train/pearson"}
    torch.testing.assert_close(loss, 2 * expected["mse"] + 0.5 * expected["pearson"])


def test_validation_counts_a_picture_once_and_averages_its_views(teacher_of):
    """Of two devices that had picture 2 both, as the parts must be of one length."""
    training = RaterTraining(teacher_of(), Recipe(), steps_an_epoch=1)
    rows = [(0, 0.1, 0.0), (0, 0.1, 0.8), (1, 0.4, 0.3), (1, 0.4, 0.3), (2, 0.2, 0.9)]
    rows += [(2, 0.2, 0.9), (3, 0.9, 1.0), (3, 0.9, 0.2), (2, 0.2, 0.9), (2, 0.2, 0.9)]
    training.seen = [torch.tensor(rows[:5], dtype=torch.float64)]
    others = torch.tensor(rows[5:], dtype=torch.float64)
    training.all_gather = lambda own: torch.stack([own, others])
    logged = {}
    training.log = lambda name, value, **_options: logged.update({name: value})
    training.on_validation_epoch_end()
    expected = srcc([0.4, 0.3, 0.9, 0.6], [0.1, 0.4, 0.2, 0.9])
    assert logged == {"val/srcc": pytest.approx(expected)}
    assert training.seen == []


def test_the_learning_rate_falls_at_its_milestones(teacher_of):
    recipe = Recipe(lr=1.0, milestones=(2, 3), decay=0.2)
    described = RaterTraining(teacher_of(), recipe, steps_an_epoch=2).configure_optimizers()
    assert described["lr_scheduler"]["interval"] == "step"
    rates = []
    for _ in range(7):
        rates.append(described["optimizer"].param_groups[0]["lr"])
        described["optimizer"].step()
        described["lr_scheduler"]["scheduler"].step()
    assert rates == pytest.approx([1, 1, 1, 1, 0.2, 0.2, 0.04])
    assert described["optimizer"].param_groups[0]["weight_decay"] == 0


def shown(pictures, seed=0, positions=range(24)):
    rounds = Rounds(pictures, seed)
    return [rounds[position][0] for position in positions]


def test_pictures_come_in_rounds_that_depend_on_the_seed_alone():
    pictures = [[i] for i in range(10)]
    row = shown(pictures)
    assert sorted(row[:10]) == sorted(row[10:20]) == list(range(10))
    assert row[:10] != row[10:20]
    assert shown(pictures, positions=range(20, 24)) == row[20:]
    assert shown(pictures, seed=1) != row


def test_a_round_shows_one_view_of_each_picture():
    pictures = [[(i, view) for view in range(3)] for i in range(10)]
    row = shown(pictures, positions=range(300))
    for start in range(0, 300, 10):
        assert sorted(i for i, _ in row[start : start + 10]) == list(range(10))
    counts = Counter(view for _, view in row)
    assert all(70 < counts[view] < 130 for view in range(3))
    assert {view for i, view in row if i == 0} == {0, 1, 2}


@pytest.mark.parametrize("seen", [0, 8])
def test_several_devices_share_each_step_s_pictures(seen):
    class Device:
        world_size, accumulate_grad_batches = 2, 1

        def __init__(self, rank):
            self.global_rank, self.global_step = rank, seen // 4

    def sample(i):
        zero = {"mos": 0.0, "target": 0.0, "name": "", "key": ""}
        return {"image": torch.zeros(3, 1, 1), "index": i, **zero}

    pictures = [[sample(i)] for i in range(10)]
    shares = []
    for rank in (0, 1):
        module = RatedModule(pictures, pictures, batch_size=2, val_batch_size=1, seed=3)
        module.trainer = Device(rank)
        first = next(iter(module.train_dataloader()))
        shares += first["index"].tolist()
    row = [sample["index"] for sample in shown(pictures, 3, range(seen, seen + 4))]
    assert sorted(shares) == sorted(row)


def test_checkpoints_leave_out_the_frozen(teacher_of):
    training = RaterTraining(teacher_of(tuning="frozen"), Recipe(), steps_an_epoch=1)
    checkpoint = {"state_dict": training.state_dict()}
    training.on_save_checkpoint(checkpoint)
    kept = {f"rater.{name}" for name in training.rater.trained_state()}
    assert set(checkpoint["state_dict"]) == kept
    assert not any("backbone" in name for name in kept)


def test_a_damaged_teacher_is_refused(teacher_of, tmp_path):
    teacher, folder = teacher_of(tuning="frozen"), tmp_path / "teacher"
    assert read_report(folder) is None
    save_rater(teacher, folder, {"steps": 3})
    assert read_report(folder) == {"steps": 3}
    state, _ = load_state(folder)
    assert state.keys() == teacher.trained_state().keys()
    weights = folder / "teacher.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"?")
    with pytest.raises(DataError, match="damaged"):
        load_state(folder)
    with pytest.raises(DataError, match="no trained nowhere there"):
        load_state(tmp_path / "nowhere")


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ({"epochs": 0}, "epochs=0: expected an integer >= 1"),
        ({"milestones": [0]}, "milestones=0: expected"),
        ({"lr": 0.0}, r"lr=0\.0: expected a positive number"),
        ({"precision": "8"}, "precision='8': expected one of"),
        ({"losses": {"mae": 1.0}}, r"losses=\{'mae': 1\.0\}: expected weights"),
        ({"losses": {"mse": -1.0}}, "expected weights >= 0"),
        ({"losses": {"mse": 0.0}}, "expected one with a weight above 0"),
    ],
    ids=str,
)
def test_wrong_recipes_are_explained(wrong, told):
    with pytest.raises(ConfigError, match=told):
        Recipe(**wrong)


def test_a_batch_must_be_dealt_out_evenly():
    assert Recipe(batch_size=16, passes=2).pictures_a_pass(devices=4) == 2
    with pytest.raises(ConfigError, match=r"expected a multiple of passes=3 x 1 devices"):
        Recipe(batch_size=16, passes=3).pictures_a_pass(devices=1)


def test_divergence_is_told(teacher_of):
    training = RaterTraining(teacher_of(), Recipe(), steps_an_epoch=1)
    training._trainer = SimpleNamespace(global_step=7)
    training.seen = [torch.tensor([[0, 0.5, float("nan")]], dtype=torch.float64)]
    training.all_gather = lambda own: own
    with pytest.raises(DataError, match=r"diverged before step 7: lower method\.training\.lr"):
        training.on_validation_epoch_end()
