"""`latentiqa export`: what leaves the house scores as it did inside."""

from __future__ import annotations

import json

import onnx
import onnxruntime
import pytest
import torch
from command_line import on_csv, places, succeed, type_in
from scripts import script

import latentiqa
from latentiqa.data.images import read_image
from latentiqa.metrics import srcc
from latentiqa.student import deploy

SPEED = script("student", "speed")


@pytest.fixture(scope="module")
def student(scores_csv, tmp_path_factory):
    """A run of the default student, whose convolutions int8 is made for; barely trained."""
    return succeed(
        *("distill", "teacher=null", "terms.score=0.0", "method.resolution=64"),
        *("fast_dev_run=true", *on_csv(scores_csv), *places(tmp_path_factory.mktemp("student"))),
    ).folder


@pytest.fixture(scope="module")
def exported(student, tmp_path_factory):
    path = tmp_path_factory.mktemp("exported") / "student.onnx"
    assert succeed("export", f"run={student}", f"output={path}").out.strip() == str(path)
    return path


def test_onnx_alone_scores_files_as_the_run_does(student, exported, scores_csv):
    """Nothing of this package between the pixels and the score, at any size."""
    onnx.checker.check_model(exported)
    session = onnxruntime.InferenceSession(exported, providers=["CPUExecutionProvider"])
    assert [one.name for one in session.get_inputs()] == ["image"]
    assert [one.name for one in session.get_outputs()] == ["score"]
    paths = sorted(scores_csv.parent.glob("*.png"))[:4]
    expected = latentiqa.score(paths, run=student)
    images = [read_image(path)[None].numpy() for path in paths]
    scores = [session.run(None, {"image": image})[0].item() for image in images]
    assert scores == pytest.approx(expected, abs=1e-4)
    batch = torch.rand(3, 3, 77, 150, generator=torch.Generator().manual_seed(0))
    found = session.run(None, {"image": batch.numpy()})[0]
    torch.testing.assert_close(
        torch.from_numpy(found), latentiqa.load_metric(student)(batch), atol=1e-4, rtol=0
    )


@pytest.mark.slow
def test_a_program_of_torch_export_scores_as_the_run_does(student, tmp_path):
    path = tmp_path / "student.pt2"
    succeed("export", f"run={student}", f"output={path}")
    program = torch.export.load(path).module()
    batch = torch.rand(3, 3, 77, 150, generator=torch.Generator().manual_seed(0))
    metric = latentiqa.load_metric(student)
    torch.testing.assert_close(program(batch), metric(batch), atol=1e-4, rtol=0)


def test_an_export_that_differs_is_told_and_not_left_behind(tmp_path):
    deployed = torch.nn.Module()
    deployed.forward = lambda image: image.mean(dim=(1, 2, 3))
    path = tmp_path / "wrong.onnx"
    path.write_bytes(b"")
    with pytest.raises(deploy.LatentiqaError, match=r"up to 0\.0002 from the model's"):
        deploy._check(deployed, lambda image: deployed(image) + 2e-4, path)
    assert not path.exists()
    path.write_bytes(b"")
    deploy._check(deployed, lambda image: deployed(image) + 5e-5, path)
    assert path.exists()


def test_int8_tells_what_it_costs(student, exported, scores_csv, tmp_path, monkeypatch):
    monkeypatch.setattr(
        deploy, "export_onnx", lambda _, path: path.write_bytes(exported.read_bytes())
    )
    path = tmp_path / "small.onnx"
    outcome = succeed(
        *("export", f"run={student}", f"output={path}", "int8=true"),
        f"pictures={scores_csv.parent}",
    )
    assert path.stat().st_size < 0.5 * exported.stat().st_size
    nodes = onnx.load(path).graph.node
    made_by = {name: node.op_type for node in nodes for name in node.output}
    assert "QuantizeLinear" in made_by.values()
    clipped = [made_by.get(node.input[0]) for node in nodes if node.op_type == "Clip"]
    assert "Conv" not in clipped  # goes with the convolution: its range is what is rounded
    told = json.loads(path.with_suffix(".json").read_text())
    measured = [read_image(p)[None] for p in sorted(scores_csv.parent.glob("*.png"))[1::2]]
    scores = [torch.cat([deploy.scorer_of(p)(one) for one in measured]) for p in (exported, path)]
    assert told["n"] == told["calibrated_on"] == len(measured) == 12
    assert told["srcc"] == pytest.approx(srcc(*scores))
    far = (scores[0] - scores[1]).abs()
    assert told["largest_difference"] == pytest.approx(far.max().item())
    assert 0 < told["mean_difference"] < told["largest_difference"]
    assert f"SRCC with float32 {told['srcc']:.4f}" in outcome.err


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        (["output=a.txt"], "output=a.txt: expected a name ending in .onnx or .pt2"),
        (["output=a.pt2", "int8=true"], "int8=true with output=a.pt2: expected a name"),
        (["int8=true"], "int8=true with 0 pictures: expected at least 6"),
        (["run=nowhere"], "run=nowhere: no results.json there"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_wrong_values_are_explained(wrong, told, student, nothing_loaded):
    outcome = type_in("export", f"run={student}", *wrong)
    assert outcome.status == 1
    assert told in " ".join(outcome.err.split())


def test_only_students_are_exported(trained, nothing_loaded):
    outcome = type_in("export", f"run={trained.folder}")
    assert outcome.status == 1
    assert "LGDM on folder, ridge is no student; distil one from it first" in outcome.err


def test_speed_is_measured_in_turn(student, exported, embedded, tmp_path, monkeypatch):
    monkeypatch.setattr(
        SPEED, "export_onnx", lambda _, path: path.write_bytes(exported.read_bytes())
    )
    SPEED.main([str(tmp_path), str(student), *("--size", "64", "--pictures", "1"), "--rounds", "3"])
    results = json.loads((tmp_path / "results.json").read_text())
    ways = [SPEED.BARE, SPEED.STUDENT, SPEED.ONNX, SPEED.INT8, SPEED.TEACHER]
    assert list(results["ways"]) == ways
    for found in results["ways"].values():
        assert len(found["seconds"]) == 3
        middle = sorted(found["seconds"])[1]
        assert found["images_per_second"] == pytest.approx(1 / middle)
    assert results["ways"][SPEED.BARE]["time_of_bare"] == 1
    assert (tmp_path / "table.md").read_text().count("\n| ") == 6
    with pytest.raises(SPEED.ConfigError, match="--rounds=2: expected an integer >= 3"):
        SPEED.main([str(tmp_path), str(student), "--rounds", "2"])


def test_the_speed_of_what_is_no_student_is_refused(embedded, tmp_path):
    with pytest.raises(SPEED.ConfigError, match="expected a run of latentiqa distill"):
        SPEED.main([str(tmp_path), str(embedded)])
