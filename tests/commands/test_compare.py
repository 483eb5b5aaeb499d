"""`latentiqa compare`: pictures of several models, their judges, a page; picks, and a ranking."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from command_line import Outcome, finish, spawn, succeed, type_in
from miniatures import write_image
from PIL import Image
from simulated_raters import STRENGTHS, picks_of, said

MODELS = ("quality_models:brightness", "quality_models:contrast")


@pytest.fixture
def options(micro_folder, tmp_path) -> list[str]:
    """Two tiny models, a short ascent on the micro backbone, scales of six small pictures."""
    for i in range(3):
        write_image(tmp_path / "photos" / f"{i}.png", i, (64, 64))
        write_image(tmp_path / "any" / f"{i}.png", i)
        Image.new("RGB", (24, 16), (60 * i + 30,) * 3).save(tmp_path / "any" / f"flat{i}.png")
    backbone = ["backbone=folder", f"backbone.source={micro_folder}", "backbone.resolution=64"]
    # Without the residual, so that models' results differ after an iteration.
    short = ["ascent.iterations=1", "space.chain.steps=1", "space.keep_residual=false"]
    short += ["tiles.overlap=16"]
    places = [f"output={tmp_path / 'out'}", f"reference={tmp_path / 'any'}"]
    psi = ["perceptual@selection.psi=nss", "selection.count=2"]
    return [*backbone, *short, *places, *psi, f"models=[{','.join(MODELS)}]"]


def results(outcome: Outcome) -> dict:
    return json.loads(Path(outcome.out.splitlines()[-1]).read_text())


def pixels(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB"), dtype=float) / 255


def test_models_make_judge_and_are_shown(options, tmp_path):
    photos, out = tmp_path / "photos", tmp_path / "out"
    (photos / "bad.png").write_bytes(b"no picture")
    more = ["judges=[quality_models:darkness]", f"pristine={photos}", "page.title=Nicer?"]
    outcome = type_in("compare", str(photos), *options, *more)
    assert outcome.status == 1
    assert "bad.png: not a picture" in outcome.err
    found = results(outcome)
    del found["n"]["adversarial"]  # see below
    assert found["n"] == {"pictures": 3, "shown": 2, "failed": 1}
    assert set(found["models"]) == set(MODELS)

    makers = ["input", *MODELS, "pristine"]
    assert list(found["matrix"]) == makers
    for maker in makers:
        folder = (
            photos if maker in ("input", "pristine") else out / "models" / maker.replace(":", "_")
        )
        folder = folder if folder == photos else folder / "pictures"
        means = [pixels(folder / f"{i}.png").mean() for i in range(3)]
        # The judge has no scale: its scores are raw.
        row = found["matrix"][maker]
        assert row["quality_models:darkness"] == pytest.approx(-np.mean(means), rel=1e-4)
        scale = found["models"][MODELS[0]]
        mapped = [100 / (1 + np.exp(-(m - scale["centre"]) / scale["spread"])) for m in means]
        assert row[MODELS[0]] == pytest.approx(np.mean(mapped), rel=1e-4)
        raw = [p["scores"][maker][MODELS[0]] for p in found["pictures"]]
        assert raw == pytest.approx(means, rel=1e-4)
    assert found["measures"]["input"]["ssim"] == pytest.approx(1)
    assert found["measures"][MODELS[0]]["nlpd"] > 0

    apart = [p["discrepancy"] for p in found["pictures"]]
    assert found["shown"][0] == str(int(np.argmax(apart)))
    study = (out / "page" / "study.js").read_text()
    assert f'"study": "{found["study"]}"' in study
    assert '"title": "Nicer?"' in study
    assert len(list((out / "page" / "pictures").iterdir())) >= 2 * 4 - 1
    assert (out / "page" / "index.html").is_file()
    assert (out / "sheet.png").is_file()
    table = (out / "matrix.md").read_text()
    assert table in outcome.out
    assert "not mapped: quality_models:darkness" in table
    with (out / "matrix.csv").open(newline="") as file:
        rows = list(csv.DictReader(line for line in file if not line.startswith("#")))
    assert [row["pictures of"] for row in rows] == makers
    mean = found["matrix"][MODELS[0]][MODELS[1]]
    assert float(rows[1]["mean of the others"]) == pytest.approx(mean, rel=1e-3)


def test_who_rises_against_all_others_is_said(options, tmp_path):
    more = [*options[:-1], "models=[quality_models:brightness,quality_models:darkness]"]
    outcome = succeed("compare", str(tmp_path / "photos"), *more, "ascent.iterations=3")
    found, count = results(outcome), 0
    for picture in found["pictures"]:
        for name, row in picture["enhanced"].items():
            (other,) = picture["enhanced"].keys() - {name}
            own, theirs = (
                picture["scores"][name][judge] - picture["scores"]["input"][judge]
                for judge in (name, other)
            )
            assert row["adversarial"] == (own > 0 > theirs)
            count += row["adversarial"]
    assert found["n"]["adversarial"] == count > 0
    assert "adversarial: a model's own score rises" in " ".join(outcome.err.split())


def test_what_is_done_is_not_done_again(options, tmp_path, monkeypatch):
    from latentiqa.enhance.enhancer import Enhancer

    made = []
    whole = Enhancer.__call__
    monkeypatch.setattr(
        Enhancer, "__call__", lambda self, *images: made.append(1) or whole(self, *images)
    )
    first = results(succeed("compare", str(tmp_path / "photos"), *options))
    assert len(made) == 6
    # As if it had been killed there; and a model and a picture are added.
    (tmp_path / "out/models/quality_models_contrast/rows/1.json").unlink()
    write_image(tmp_path / "photos" / "new.png", 9, (64, 64))
    more = [*options[:-1], f"models=[{','.join(MODELS)},quality_models:darkness]"]
    again = results(succeed("compare", str(tmp_path / "photos"), *more))
    assert len(made) == 6 + 1 + 2 + 4
    for old, new in zip(first["pictures"], again["pictures"], strict=False):
        assert old["scores"]["input"].items() <= new["scores"]["input"].items()
        assert old["discrepancy"] != new["discrepancy"]
    rated = json.loads((tmp_path / "out/ratings/quality_models_darkness.json").read_text())
    assert len(rated["scores"]) == 4 * 4


def test_a_picture_that_one_model_fails_on_is_left_out_and_said(options, tmp_path, monkeypatch):
    import quality_models

    def picky(image):
        return image.mean(dim=(1, 2, 3)) * (float("nan") if image.shape[-1] == 48 else 1)

    monkeypatch.setattr(quality_models, "darkness", picky)
    write_image(tmp_path / "photos" / "1.png", 1, (48, 64))
    more = ["judges=[quality_models:darkness]", "tiles.overlap=8"]
    outcome = type_in("compare", str(tmp_path / "photos"), *options, *more)
    assert outcome.status == 1
    found = results(outcome)
    assert [p["name"] for p in found["pictures"]] == ["0", "2"]
    assert found["failed"][0]["name"].endswith("1.png")
    assert found["failed"][0]["reason"].startswith("quality_models:darkness on input: ")


def test_psis_and_runs_are_models_by_a_word(options, tmp_path, micro_run, embedded):
    more = [f"models=[lgdm,psi:nss,psi:own,{micro_run}]", f"good={tmp_path / 'any'}"]
    more += ["+psis.nss.scales=1", "+psis.own._target_=latentiqa.perceptual.nss.NSS"]
    more += ["ascent.iterations=0", "selection.count=null"]
    changed = [option for option in options if not option.startswith(("models", "ascent", "sele"))]
    found = results(succeed("compare", str(tmp_path / "photos" / "0.png"), *changed, *more))
    names = ["lgdm", "psi:nss", "psi:own", micro_run.name]
    assert list(found["models"]) == names
    row = found["matrix"]["input"]
    assert row["lgdm"] == pytest.approx(row[micro_run.name])  # one is in the place of the other
    assert found["models"]["psi:nss"] != found["models"]["psi:own"]
    assert found["n"]["shown"] == 1


def test_pictures_too_small_to_be_measured_or_chosen_do_not_stop_the_rest(options, tmp_path):
    photos = tmp_path / "photos"
    write_image(photos / "icon.png", 0, (8, 8))
    write_image(photos / "small.png", 0, (24, 24))
    psi = ["perceptual@selection.psi=efficientnet", f"pristine={photos}", "measures=[ssim]"]
    outcome = type_in("compare", str(photos), *options, *psi)
    assert outcome.status == 1
    told = " ".join(outcome.err.split())
    assert "icon.png: SSIM of 8 x 8 pixels: expected 11 a side or more" in told
    assert "small.png: selection.psi: EfficientNet on a picture of 24 x 24" in told
    assert {"pictures": 3, "shown": 2, "failed": 2}.items() <= results(outcome)["n"].items()


def write_page_of(folder: Path, study: str) -> None:
    folder.mkdir(parents=True)
    (folder / "index.html").touch()
    (folder / "study.js").write_text(f'"use strict";\nconst STUDY = {{\n "study": "{study}"}};\n')


def write_picks(folder: Path, raters: dict) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for i, (name, picks) in enumerate(raters.items()):
        keys = ("kind", "picture", "left", "right", "milliseconds")
        rows = [{k: getattr(p, k) for k in keys} | {"pick": p.side} for p in picks]
        found = said(session=f"{i:08x}", picks=rows) | {"rater": name}
        (folder / f"{i}.json").write_text(json.dumps(found))


def test_picks_become_a_ranking(tmp_path):
    generator = np.random.default_rng(0)
    raters = {f"rater {i}": picks_of(generator) for i in range(12)}
    raters["nobody | there"] = picks_of(generator, care=0, side="right")
    out = tmp_path / "out"
    write_page_of(out / "page", study="0123456789ab")
    write_picks(out / "picks" / "0123456789ab", raters)
    write_picks(out / "picks" / "ba9876543210", {"of another study": raters["rater 0"]})
    outcome = succeed("compare", "rank", f"output={out}", "rank.resamples=100")
    found = results(outcome)
    assert [model["name"] for model in found["models"]] == list(STRENGTHS)
    assert found["n"] == {"raters": 13, "picks": 13 * 60, "dropped": 0}
    flagged = {rater["name"]: rater["reasons"] for rater in found["raters"] if rater["reasons"]}
    assert list(flagged) == ["nobody | there"]
    assert "picked the right side in 72 of 72 trials" in flagged["nobody | there"]
    assert "inconsistent: nobody | there" in " ".join(outcome.err.split())
    assert found["picked_over"]["a"]["b"] > 0.5
    assert (out / "ranking.md").read_text() in outcome.out
    assert "inconsistent raters, not left out: nobody" in outcome.out
    with (out / "raters.csv").open(newline="") as file:
        assert len(list(csv.DictReader(file))) == 13
    with Image.open(out / "ranking.png") as figure:
        assert figure.width > 500

    given = out / "picks" / "0123456789ab"
    paths = [str(given / "0.json"), str(given / "12.json")]
    fewer = results(succeed("compare", "rank", *paths, f"output={out}", "rank.drop_flagged=true"))
    assert fewer["n"] == {"raters": 1, "picks": 60, "dropped": 1}
    assert fewer["drawn"] == "picks"
    listed = f"picks=[{','.join(paths)}]"
    assert results(succeed("compare", "rank", listed, f"output={out}"))["n"]["raters"] == 2
    alone = [paths[1], f"output={out}", "rank.drop_flagged=true"]
    outcome = type_in("compare", "rank", *alone)
    assert outcome.status == 1
    assert "all raters are flagged as inconsistent" in " ".join(outcome.err.split())


@pytest.mark.parametrize(
    ("typed", "told"),
    [
        (["rank", "output=gone"], "gone/page: no 2AFC page there"),
        (["rank", "a.json", "picks=b.json"], "expected one of both"),
        (["rank", "rank.limits.few=0"], "few=0"),
        (["rank", "rank.drop_flagged=maybe"], "rank.drop_flagged='maybe'"),
        (["serve", "out"], "the comparison's folder is output=FOLDER"),
        (["serve", "output=gone"], "gone/page: no 2AFC page there"),
        (["photos"], "models is not set"),
        (["photos", "models=default"], "models=default: expected a list"),
        (["photos", "models=[lgdm]"], "models=['lgdm']: expected two or more"),
        (["photos", "models=[lgdm,lgdm]"], "two have the same name"),
        (["photos", "models=[lgdm,m:q]", "judges=[lgdm]"], "two have the same name"),
        (["photos", "models=[lgdm,m:q]"], "m:q has no scale of its own: give reference=FOLDER"),
        (["photos", "models=[lgdm,psi:nss]"], "psi:nss needs good=FOLDER"),
        (["photos", "models=[lgdm,psi:x]", "good=photos"], "psi:x: expected one of arniqa,"),
        (["photos", "models=[lgdm,psi:sd]", "good=photos"], "prior.psi=BackboneFeatures"),
        (["photos", "models=[lgdm,psi:dists]", "good=photos"], "add '+psis.dists.weights=...'"),
        (["photos", "models=[lgdm,runs/gone]"], "runs/gone"),
        (["photos", "models=[lgdm,m:q]", "reference=photos"], "prior.function=m:q"),
        (["photos", "models=[lgdm,student]", "judges=[m:q]"], "prior.function=m:q"),
        (["photos", "models=[lgdm,m:q]", "reference=r", "measures=[psnr,vmaf]"], "'vmaf']"),
        (["photos", "models=[lgdm,m:q]", "reference=r", "pristine=p"], "pristine=p: expected"),
        (["photos", "models=[lgdm,m:q]", "reference=r", "page.trials=0"], "page.trials=0"),
        (["photos", "models=[lgdm,m:q]", "reference=r", "selection.count=0"], "count=0"),
        (["photos", "models=[lgdm,m:q]", "reference=r", "way.kind=film"], "way.kind='film'"),
        (["photos", "models=[lgdm,m:q]", "reference=r", "output=photos/o"], "lies inside of"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_mistakes_are_told_before_anything_is_loaded(
    typed, told, tmp_path, monkeypatch, nothing_loaded
):
    write_image(tmp_path / "photos" / "a.png")
    monkeypatch.chdir(tmp_path)
    outcome = type_in("compare", *typed)
    assert outcome.status == 1
    assert told in " ".join(outcome.err.split())
    assert "Traceback" not in outcome.err


@pytest.mark.slow
def test_serve_ends_when_it_is_interrupted(tmp_path):
    import signal
    import urllib.request

    page = tmp_path / "out" / "page"
    page.mkdir(parents=True)
    (page / "index.html").write_text("here")
    (page / "study.js").write_text('const STUDY = {"study": "0abc"};')
    process = spawn("compare", "serve", f"output={tmp_path / 'out'}", "serve.port=0")
    assert process.stdout is not None
    address = process.stdout.readline().strip()
    assert address.startswith("http://127.0.0.1:")
    with urllib.request.urlopen(address, timeout=20) as answer:
        assert answer.read() == b"here"
    # Not SIGINT: who was started in a shell's background ignores it, and so would this process.
    process.send_signal(signal.SIGTERM)
    assert finish(process).status == 0
