from __future__ import annotations

import json
import random
import subprocess
import sys

import numpy as np
import pytest
import torch
from hydra.utils import instantiate
from lightning.pytorch.loggers import CSVLogger
from omegaconf import OmegaConf

from latentiqa.errors import ConfigError, DataError
from latentiqa.heads import MLPHead, RidgeHead
from latentiqa.metrics import plcc, srcc

SMALL = {"hidden": (8,), "epochs": 6, "batch_size": 16, "lr": 0.01}


def problem(n: int = 80, f: int = 10) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(n, f, generator=generator)
    y = torch.sigmoid(x[:, 0] - x[:, 1] + 0.3 * torch.randn(n, generator=generator))
    return x * 50 + 7, y


def fitted(head: MLPHead, **kwargs) -> dict:
    x, y = problem()
    return head.fit(x[:60], y[:60], x[60:], y[60:], **kwargs)


def test_linear_comes_close_to_ridge():
    x, y = problem(300)
    linear = MLPHead(hidden=(), dropout=0.0, lr=0.01, epochs=40)
    ridge = RidgeHead(refit=False)
    for head in (linear, ridge):
        head.fit(x[:200], y[:200], x[200:250], y[200:250])
    # Not the same scale: the epoch is chosen by rank, perhaps before the scale has converged.
    assert plcc(linear.predict(x[250:]), ridge.predict(x[250:])) > 0.98
    assert srcc(linear.predict(x[250:]), y[250:]) > 0.9


def test_a_hidden_layer_learns_what_is_not_linear():
    x = torch.rand(300, 2, generator=torch.Generator().manual_seed(0)) * 2 - 1
    y = (x[:, 0] * x[:, 1] + 1) / 2
    scores = {}
    for name, hidden in (("linear", ()), ("mlp", (32,))):
        head = MLPHead(hidden=hidden, dropout=0.0, lr=0.01, epochs=40)
        head.fit(x[:200], y[:200], x[200:250], y[200:250])
        scores[name] = srcc(head.predict(x[250:]), y[250:])
    assert scores["mlp"] > 0.8 > 0.5 > scores["linear"]


def test_losses_are_chosen_and_weighed():
    x, _ = problem()
    heads = {
        name: MLPHead(**SMALL, losses=losses)
        for name, losses in {
            "usual": None,
            "mse": {"mse": 1.0, "fidelity": 0.0},
            "fidelity": {"fidelity": 1.0},
        }.items()
    }
    reports = {name: fitted(head) for name, head in heads.items()}
    usual, same, other = (head.predict(x[60:]) for head in heads.values())
    assert torch.equal(usual, same)
    assert not torch.allclose(usual, other, atol=1e-3)
    assert reports["fidelity"]["val_srcc"] > 0.8
    with pytest.raises(
        ConfigError, match=r"losses=\{'mae': 1\.0\}: expected weights >= 0 of mse, "
    ):
        MLPHead(losses={"mae": 1.0})


def test_the_best_epoch_is_kept_and_training_stops_early(monkeypatch):
    """Validation SRCC is scripted; the weights must be those after the epoch scripted as best."""
    script = iter([0.1, 0.5, 0.2, 0.3, 0.4])
    monkeypatch.setattr("latentiqa.heads.mlp_training.srcc", lambda pred, y: next(script))
    stopped, short = MLPHead(**SMALL | {"patience": 2}), MLPHead(**SMALL | {"epochs": 2})
    report = fitted(stopped)
    assert (report["best_epoch"], report["epochs"]) == (2, 4)
    script = iter([0.1, 0.5])
    fitted(short)
    assert all(torch.equal(a, b) for a, b in zip(stopped.buffers(), short.buffers(), strict=True))
    assert all(
        torch.equal(a, b) for a, b in zip(stopped.parameters(), short.parameters(), strict=True)
    )


def test_the_report_is_that_of_the_kept_weights():
    head = MLPHead(**SMALL)
    report = fitted(head)
    x, y = problem()
    assert report["val_srcc"] == srcc(head.predict(x[60:]), y[60:])
    assert set(report) == {"val_srcc", "epochs", "best_epoch", "seconds"}
    assert json.loads(json.dumps(report)) == report


def test_a_seed_gives_the_same_head_whatever_the_global_state():
    x, _ = problem()
    scores = []
    for global_seed, seed in ((0, 0), (1, 0), (1, 1)):
        torch.manual_seed(global_seed)
        head = MLPHead(**SMALL, seed=seed)
        fitted(head)
        scores.append(head.predict(x))
    assert torch.equal(scores[0], scores[1])
    assert not torch.equal(scores[1], scores[2])


def test_global_random_states_are_left_as_they_were():
    before = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].tolist()
    fitted(MLPHead(**SMALL))
    after = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].tolist()
    assert torch.equal(before[0], after[0])
    assert before[1:] == after[1:]
    assert not torch.are_deterministic_algorithms_enabled()


def test_fitting_is_silent_and_leaves_no_file(tmp_path, monkeypatch, capfd, recwarn):
    monkeypatch.chdir(tmp_path)
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(temporary))
    fitted(MLPHead(**SMALL))
    assert capfd.readouterr() == ("", "")
    assert [p for p in tmp_path.rglob("*") if p.is_file()] == []
    assert list(recwarn) == []


def test_the_logger_gets_every_epoch(tmp_path):
    logger = CSVLogger(tmp_path)
    fitted(MLPHead(**SMALL, patience=10), logger=logger)
    text = next(tmp_path.rglob("metrics.csv")).read_text()
    assert "train/loss" in text
    assert "val/srcc" in text
    assert len(text.splitlines()) >= 1 + 6


def test_fast_dev_run_takes_one_step(tmp_path):
    head = MLPHead(**SMALL | {"hidden": (), "lr": 1e-3})
    report = fitted(head, logger=CSVLogger(tmp_path), fast_dev_run=True)
    # AdamW moves a weight by at most lr in its first step from zero.
    assert 0 < head.network[0].weight.abs().max() <= 1.01e-3
    assert -1 <= report["val_srcc"] <= 1
    assert list(tmp_path.rglob("metrics.csv")) == []


def test_the_gradient_of_a_score_is_its_derivative():
    head = MLPHead(**SMALL)
    fitted(head)
    x = problem()[0].double().requires_grad_()
    (gradient,) = torch.autograd.grad(head.predict(x).sum(), x)
    train = x[:60].detach().numpy()
    z = (x.detach().numpy() - train.mean(0)) / train.std(0)
    w1, b1, w2, _ = (p.detach().double().numpy() for p in head.parameters())
    by_hand = (w2 * (z @ w1.T + b1 > 0)) @ w1 / train.std(0)
    assert gradient.numpy() == pytest.approx(by_hand, rel=1e-5, abs=1e-9)
    assert not any(p.requires_grad for p in head.parameters())


def test_dropout_and_autocast_never_reach_a_score():
    head = MLPHead(**SMALL | {"dropout": 0.5})
    fitted(head)
    x, _ = problem()
    expected = head.predict(x)
    head.train()
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(head.predict(x), expected)
    assert expected.dtype == torch.float32


def test_fitting_again_starts_anew():
    head, fresh = MLPHead(**SMALL), MLPHead(**SMALL)
    x, y = problem()
    head.fit(x[:60, :4], 1 - y[:60], x[60:, :4], 1 - y[60:])
    fitted(head)
    fitted(fresh)
    assert torch.equal(head.predict(x), fresh.predict(x))


def test_features_of_an_inference_mode_loop_can_be_fitted():
    with torch.inference_mode():
        x, y = problem()
    head = MLPHead(**SMALL)
    head.fit(x[:60], y[:60], x[60:], y[60:])
    assert head.predict(x).isfinite().all()


def test_divergence_is_said():
    with pytest.raises(DataError, match=r"diverged at epoch \d+: lower head.lr"):
        fitted(MLPHead(**SMALL | {"lr": 1e30}))


def test_constant_validation_targets_are_an_error():
    x, y = problem()
    with pytest.raises(DataError, match="validation SRCC is undefined"):
        MLPHead(**SMALL).fit(x[:60], y[:60], x[60:], torch.ones(20))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("hidden", (0,)),
        ("dropout", 1.0),
        ("dropout", -0.1),
        ("lr", 0.0),
        ("lr", float("nan")),
        ("weight_decay", -1.0),
        ("epochs", 0),
        ("batch_size", 0),
        ("patience", 0),
        ("seed", -1),
    ],
)
def test_arguments_outside_their_range_are_refused(name, value):
    with pytest.raises(ConfigError, match=f"{name}="):
        MLPHead(**{name: value})


@pytest.mark.parametrize(("config", "hidden"), [("mlp", [256]), ("linear", [])])
def test_the_configs_make_the_heads(config, hidden, pytestconfig):
    head = instantiate(OmegaConf.load(pytestconfig.rootpath / f"conf/head/{config}.yaml"))
    assert isinstance(head, MLPHead)
    assert head.arguments["hidden"] == hidden
    if config == "mlp":
        assert head.arguments == MLPHead().arguments


def test_importing_the_heads_does_not_import_lightning():
    code = "import sys, latentiqa.heads; print('lightning' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
