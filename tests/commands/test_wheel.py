"""A built wheel composes and runs what a checkout does."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def unpacked(tmp_path_factory) -> Path:
    """The wheel's content, in a folder far from the checkout."""
    folder = tmp_path_factory.mktemp("wheel")
    build = [sys.executable, "-m", "build", "--no-isolation", "--wheel", "--outdir", str(folder)]
    done = subprocess.run([*build, str(ROOT)], capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stdout + done.stderr
    (wheel,) = folder.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder / "unpacked")
    return folder / "unpacked"


def type_in_wheel(unpacked: Path, cwd: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    code = (
        "import latentiqa, sys; from pathlib import Path\n"
        f"assert Path(latentiqa.__file__).is_relative_to({str(unpacked)!r}), latentiqa.__file__\n"
        "from latentiqa.commands import main; main()"
    )
    return subprocess.run(
        [sys.executable, "-c", code, *arguments],
        cwd=cwd,
        env=os.environ | {"PYTHONPATH": str(unpacked), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=240,
    )


def recipes(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for pattern in ("conf/**/*.yaml", "experiments/*/experiment/*.yaml", "sweeps/sweep/*.yaml")
        for path in folder.glob(pattern)
    }


@pytest.mark.slow
def test_the_wheel_holds_every_config_and_module(unpacked):
    assert recipes(unpacked / "latentiqa") == recipes(ROOT)
    modules = {path.relative_to(unpacked) for path in unpacked.glob("latentiqa/**/*.py")}
    assert modules == {p.relative_to(ROOT / "src") for p in (ROOT / "src").glob("**/*.py")}
    assert {path.name for path in unpacked.iterdir() if path.suffix != ".dist-info"} == {
        "latentiqa"
    }


@pytest.mark.slow
@pytest.mark.parametrize("recipe", ["experiment=demo", "sweep=splits"])
def test_the_wheel_composes_in_an_empty_folder(unpacked, tmp_path, recipe):
    done = type_in_wheel(unpacked, tmp_path, "train", recipe, "--cfg", "job", "--resolve")
    assert done.returncode == 0, done.stderr
    assert "_target_: latentiqa.guidance.PMG" in done.stdout
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_the_wheel_trains_in_an_empty_folder(unpacked, tmp_path, micro):
    photos = [
        "dataset.photos=[camera,coffee,moon,rocket]",
        f"dataset.cache_dir={tmp_path / 'cache'}",
    ]
    options = ["experiment=demo", "debug=fdr", *micro, *photos]
    (tmp_path / "empty").mkdir()
    done = type_in_wheel(unpacked, tmp_path / "empty", "train", *options)
    assert done.returncode == 0, done.stderr
    results = tmp_path / "empty" / done.stdout.splitlines()[-1]
    assert results.is_file()
    assert [path.name for path in (tmp_path / "empty").iterdir()] == ["runs"]
