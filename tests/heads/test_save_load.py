from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from latentiqa.errors import DataError
from latentiqa.hashing import file_digest
from latentiqa.heads import Head, MLPHead, QuadraticRidgeHead, RidgeHead, load_head, save_head

HEADS = {
    "ridge": lambda: RidgeHead(alphas=[1.0, 10.0], refit=False),
    "quadratic": lambda: QuadraticRidgeHead(alphas=[1.0, 10.0], rank=3),
    "linear": lambda: MLPHead(hidden=(), epochs=1),
    "mlp": lambda: MLPHead(hidden=(6, 4), epochs=1, seed=3),
}
X = torch.randn(40, 7, generator=torch.Generator().manual_seed(0))


def fitted(name: str) -> Head:
    head = HEADS[name]()
    y = torch.sigmoid(X[:, 0] + X[:, 1])
    head.fit(X[:30], y[:30], X[30:], y[30:])
    return head


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    save_head(fitted("ridge"), tmp_path / "head", {"layers": ["up.0"]})
    return tmp_path / "head"


def edit(folder: Path, **changes: object) -> None:
    path = folder / "head.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


@pytest.mark.parametrize("name", HEADS)
def test_a_loaded_head_scores_to_the_bit(name, tmp_path):
    head, meta = fitted(name), {"layers": ["up.0.resnet.1"], "timesteps": [10, 20], "ref": None}
    save_head(head, tmp_path / "new" / "folder", meta)
    state = torch.get_rng_state()
    loaded, loaded_meta = load_head(tmp_path / "new" / "folder")
    assert torch.equal(torch.get_rng_state(), state)
    assert type(loaded) is type(head)
    assert loaded.arguments == head.arguments
    assert loaded_meta == meta
    assert torch.equal(loaded.predict(X), head.predict(X))
    assert not loaded.predict(X).requires_grad


def test_a_loaded_head_is_differentiable_and_can_be_fitted_again(tmp_path):
    for name in HEADS:
        head = fitted(name)
        save_head(head, tmp_path)
        loaded, _ = load_head(tmp_path)
        x = X.clone().requires_grad_()
        (gradient,) = torch.autograd.grad(loaded.predict(x).sum(), x)
        assert gradient.abs().max() > 0
        y = torch.sigmoid(X[:, 0] + X[:, 1])
        loaded.fit(X[:30], y[:30], X[30:], y[30:])
        assert torch.equal(loaded.predict(X), head.predict(X))


def test_the_folder_holds_two_files_and_no_more(folder):
    assert sorted(p.name for p in folder.iterdir()) == ["head.json", "head.safetensors"]


def test_saving_replaces_the_head_before_it(folder):
    head = fitted("mlp")
    save_head(head, folder)
    loaded, meta = load_head(folder)
    assert torch.equal(loaded.predict(X), head.predict(X))
    assert meta == {}


def test_a_crash_while_writing_leaves_the_old_head(folder, monkeypatch):
    before, _ = load_head(folder)

    def crash(descriptor):
        raise OSError("No space left on device")

    monkeypatch.setattr("os.fsync", crash)
    with pytest.raises(OSError, match="No space"):
        save_head(fitted("mlp"), folder)
    assert sorted(p.name for p in folder.iterdir()) == ["head.json", "head.safetensors"]
    assert torch.equal(load_head(folder)[0].predict(X), before.predict(X))


def test_a_crash_between_the_files_is_found(folder, monkeypatch):
    replace = Path.replace

    def crash(self, target):
        if Path(target).name == "head.json":
            raise OSError("killed")
        return replace(self, target)

    monkeypatch.setattr(Path, "replace", crash)
    with pytest.raises(OSError, match="killed"):
        save_head(fitted("mlp"), folder)
    with pytest.raises(DataError, match=r"head\.safetensors: damaged, or not of the head\.json"):
        load_head(folder)


@pytest.mark.parametrize("name", ["head.json", "head.safetensors"])
def test_a_missing_file_is_named(folder, name):
    (folder / name).unlink()
    with pytest.raises(DataError, match=f"{name}: cannot be read .*expected the folder"):
        load_head(folder)


@pytest.mark.parametrize("damage", ["truncate", "flip a bit", "empty"])
def test_damaged_weights_are_found(folder, damage):
    path = folder / "head.safetensors"
    data = bytearray(path.read_bytes())
    if damage == "flip a bit":
        data[-3] ^= 1
    path.write_bytes({"truncate": data[:-8], "flip a bit": data, "empty": b""}[damage])
    with pytest.raises(DataError, match=r"head\.safetensors: damaged"):
        load_head(folder)


def test_weights_that_are_no_safetensors_are_refused(folder):
    path = folder / "head.safetensors"
    torch.save({"weight": torch.ones(7)}, path)
    edit(folder, weights_sha256=file_digest(path, 64))
    with pytest.raises(DataError, match=r"head\.safetensors: not the weights of a RidgeHead"):
        load_head(folder)


@pytest.mark.parametrize("change", ["wrong shape", "missing tensor"])
def test_weights_of_another_shape_are_refused(folder, change):
    path = folder / "head.safetensors"
    tensors = load_file(path)
    weight = tensors.pop("weight")
    if change == "wrong shape":
        tensors["weight"] = weight[:-1].clone()
    save_file(tensors, path)
    edit(folder, weights_sha256=file_digest(path, 64))
    with pytest.raises(DataError, match="not the weights of a RidgeHead on 7 features"):
        load_head(folder)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"class": "os.system"},
            "unknown head 'os.system', expected one of RidgeHead, QuadraticRidgeHead",
        ),
        ({"class": ["RidgeHead"]}, "unknown head"),
        ({"schema": 99}, "schema 99, expected 1"),
        ({"arguments": {"beta": 1}}, "wrong arguments of RidgeHead"),
        ({"arguments": {"alphas": [-1.0]}}, "wrong arguments of RidgeHead"),
        ({"in_features": "many"}, "wrong arguments of RidgeHead"),
    ],
)
def test_a_description_that_does_not_fit_is_refused(folder, changes, message):
    edit(folder, **changes)
    with pytest.raises(DataError, match=message):
        load_head(folder)


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '"head"', "\x00\xff"])
def test_a_description_that_is_none_is_refused(folder, text):
    (folder / "head.json").write_bytes(text.encode("latin-1"))
    with pytest.raises(DataError, match=r"head\.json: not a description of a head"):
        load_head(folder)


def test_what_cannot_be_saved_leaves_nothing(tmp_path):
    with pytest.raises(DataError, match="RidgeHead is not fitted"):
        save_head(RidgeHead(), tmp_path / "head")
    with pytest.raises(DataError, match="not JSON"):
        save_head(fitted("ridge"), tmp_path / "head", {"path": tmp_path})
    assert not (tmp_path / "head").exists()
