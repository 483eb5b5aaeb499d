"""Checkpoints that are there complete, or as they were before."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest
from lightning import LightningModule

from latentiqa.training.go_on import GoOn


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
