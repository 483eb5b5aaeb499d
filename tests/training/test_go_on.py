"""Checkpoints that are there complete, or as they were before."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import EarlyStopping

from latentiqa.training.go_on import Best, GoOn


def test_the_best_one_is_known_again_in_a_folder_that_was_moved(tmp_path):
    before = Best(tmp_path / "old", "best", monitor="val/srcc", mode="max")
    path = str(tmp_path / "old" / "best.ckpt")
    before.best_model_path, before.best_model_score = path, torch.tensor(0.8)
    before.best_k_models = {path: torch.tensor(0.8)}
    before.kth_best_model_path, before.kth_value = path, torch.tensor(0.8)
    after = Best(tmp_path / "new", "best", monitor="val/srcc", mode="max")
    after.load_state_dict(before.state_dict())
    moved = str(tmp_path / "new" / "best.ckpt")
    assert after.best_model_path == after.kth_best_model_path == moved
    assert after.best_k_models == {moved: torch.tensor(0.8)}
    assert after.best_model_score == 0.8
    assert not after.check_monitor_top_k(Trainer(logger=False), torch.tensor(0.7))


@pytest.mark.parametrize(("waited", "stops"), [(2, False), (3, True)])
def test_a_training_that_had_ended_by_itself_does_not_go_on(waited, stops, tmp_path):
    stopping = EarlyStopping("val/srcc", patience=3)
    stopping.wait_count = waited
    trainer = SimpleNamespace(global_step=7, should_stop=False, early_stopping_callbacks=[stopping])
    GoOn(tmp_path / "last.ckpt", 5, 7).on_train_start(trainer, LightningModule())  # type: ignore[arg-type]
    assert trainer.should_stop is stops


def test_a_checkpoint_that_cannot_be_finished_leaves_the_last_one(tmp_path):
    space = [True]

    def save(path: Path) -> None:
        path.write_text("hal")
        if not space[0]:
            raise OSError("no space left on device")
        path.write_text(f"step {trainer.global_step}")

    trainer = SimpleNamespace(global_step=5, save_checkpoint=save, is_global_zero=True)
    last = tmp_path / "last.ckpt"
    go_on = GoOn(last, every=5, steps_an_epoch=100)
    go_on.on_train_batch_end(trainer)  # type: ignore[arg-type]
    assert last.read_text() == "step 5"
    trainer.global_step, space[0] = 10, False
    with pytest.raises(OSError, match="no space"):
        go_on.on_train_batch_end(trainer)  # type: ignore[arg-type]
    assert last.read_text() == "step 5"
    space[0] = True
    go_on.on_validation_end(trainer, LightningModule())  # type: ignore[arg-type]
    assert [path.name for path in tmp_path.iterdir()] == ["last.ckpt"]
    assert last.read_text() == "step 10"
