"""latentiqa distill: a small fast network learns to score from a finished run.

Usage: latentiqa distill [teacher=RUN] [group=choice ...] [key=value ...]

The student learns the teacher's scores, human scores, and with terms.map the map of quality that
a teacher of method=dpiqa draws. The teacher sees each augmented view of a picture once; what it
says is kept in the store. Further pictures without scores can be added. The last line printed is
the path of results.json; the run is scored, evaluated and loaded as those of `latentiqa train`
are, and it goes on when it was interrupted.

  latentiqa distill dataset=biq2021 dataset.root=BIQ2021 split=official
  latentiqa distill teacher=runs/dpiqa-0123456789ab terms.map=1.0 dataset=csv dataset.path=my.csv
  latentiqa distill 'teacher=[runs/a-...,runs/b-...]' dataset@unlabelled=folder unlabelled.root=more
  latentiqa distill teacher=null terms.score=0.0

  groups    student augment views dataset dataset@unlabelled trainer logger callbacks experiment
            sweep debug
  often     teacher=lgdm (a scorer inside the package), terms.mos=1.0, terms.score=1.0,
            terms.map=0.0, data.flips=false, training.epochs=30, training.lr=1e-4, force=true

The config:    latentiqa distill --cfg job
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig, ListConfig, OmegaConf

from latentiqa.commands.fitting import finished_before, fitting_of
from latentiqa.commands.launch import Done, build
from latentiqa.commands.parts import device_of, fill_stores, inspect, thinned
from latentiqa.commands.train import Plan, carry_out, plan_run, refuse_leaks
from latentiqa.commands.trained import FinishedRun, find_run
from latentiqa.errors import ConfigError, DataError

if TYPE_CHECKING:
    from pathlib import Path

    from lightning import Trainer
    from lightning.pytorch.loggers import Logger

    from latentiqa.commands.parts import Method
    from latentiqa.data.datamodule import RatedModule
    from latentiqa.data.manifest import Manifest
    from latentiqa.data.views import Views
    from latentiqa.hyperfeatures.store import FeatureStore
    from latentiqa.student.network import Student
    from latentiqa.student.teachers import TeacherLabels, TeacherOutputs
    from latentiqa.student.training import Terms

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Lessons:
    """What a student learns from.

    Attributes:
        terms: their weights.
        teachers: finished runs; none for human scores alone.
        augment: what of a picture teachers and student are shown.
        unlabelled: pictures that only the teachers rate; names begin with ``unlabelled/``.
    """

    terms: Terms
    teachers: tuple[FinishedRun, ...]
    augment: Views
    unlabelled: Manifest | None


def run(config: DictConfig) -> Done:
    """Distil and evaluate one run; see the module's docstring."""
    lessons = plan_lessons(config)
    plan = plan_distillation(config, lessons)
    return carry_out(config, plan, partial(train_student, lessons))


def plan_lessons(config: DictConfig) -> Lessons:
    """Check what is learnt from; nothing heavy is loaded.

    Raises:
        ConfigError: terms and teachers do not go together.
        LatentiqaError: a value is outside its range, or something is not there.
    """
    terms, augment = build(config.terms), build(config.augment)
    given = config.teacher if isinstance(config.teacher, ListConfig) else [config.teacher]
    teachers = tuple(find_run(run, config.paths.runs) for run in given if run is not None)
    # There is no such key unless a dataset is chosen for it.
    more = OmegaConf.select(config, "unlabelled")
    unlabelled = None if more is None else _without_scores(build(more))
    if not teachers and (terms.score or terms.map):
        raise ConfigError(
            f"teacher=null with terms.score={terms.score} and terms.map={terms.map}: set both to "
            "0.0 for human scores alone, or name a teacher."
        )
    if teachers and not (terms.score or terms.map):
        raise ConfigError(
            "terms.score=0 with terms.map=0: nothing is learnt from the teacher; set teacher=null."
        )
    if unlabelled and not teachers:
        raise ConfigError(
            "dataset@unlabelled with teacher=null: nothing says what these pictures are worth; "
            "name a teacher."
        )
    if terms.map and len(drawing_of(teachers)) != 1:
        raise ConfigError(
            f"terms.map={terms.map} with {len(drawing_of(teachers))} teachers that draw a map of "
            "quality: expected one; name by teacher= a run of method=dpiqa or a student that has "
            "learnt one, or set terms.map=0.0 to learn scores alone."
        )
    if drawing_of(teachers) and not terms.map:
        log.info("the teacher's map of quality is not learnt: terms.map=0")
    return Lessons(terms, teachers, augment, unlabelled)


def drawing_of(teachers: Sequence[FinishedRun]) -> list[FinishedRun]:
    """Teachers that draw a map of quality."""

    def draws(run: FinishedRun) -> bool:
        config = run.results["config"]
        match config["method"]["name"]:
            case "dpiqa":
                return True
            case "student":
                return bool(config["terms"]["map"]) or config["student"]["score"] == "map"
        return False

    return [run for run in teachers if draws(run)]


def _without_scores(manifest: Manifest) -> Manifest:
    """Names of their own, beside those of the labelled pictures; scores, if any, are not read."""
    from latentiqa.data.manifest import UNRATED

    records = [replace(r, name=f"unlabelled/{r.name}", mos=UNRATED) for r in manifest]
    return replace(manifest, records=tuple(records), mos_range=None)


def plan_distillation(config: DictConfig, lessons: Lessons) -> Plan:
    """As `latentiqa.commands.train.plan_run`; teachers and pictures count by their content."""
    content = {f"teacher{i}": run.identity for i, run in enumerate(lessons.teachers)}
    if lessons.unlabelled:
        content["unlabelled"] = lessons.unlabelled.fingerprint
    content["trunk"] = build(config.student).trunk.weights
    notes = [f"teacher: {note}" for run in lessons.teachers for note in run.results["notes"]]
    plan = plan_run(config, notes, **content)
    # Reports put splits of one method together, whose teachers are other runs of one method, too.
    taught = {"taught_by": [run.method for run in lessons.teachers]}
    return replace(plan, values=plan.values | taught)


def train_student(
    lessons: Lessons,
    config: DictConfig,
    method: Method,
    manifest: Manifest,
    parts: Mapping[str, Sequence[str]],
    keys: Mapping[str, str],
    folder: Path,
    make_trainer: Callable[..., Trainer],
    logger: Logger | None,
) -> dict[str, Any]:
    """Train a student on train, choose the epoch on validation, leave it in ``student/``.

    It goes on as `latentiqa.commands.rater.train_rater` does. The test part is not read.

    Args:
        lessons: what it learns from.
        config: of the run.
        method: with the student's parts.
        manifest: the dataset.
        parts: names of the readable pictures of each part.
        keys: their image keys.
        folder: of the run.
        make_trainer: from `latentiqa.commands.parts.trainer_factory`.
        logger: receives losses and validation SRCC.

    Returns:
        How it was trained.

    Raises:
        ConfigError: the batch cannot be dealt out, or the teacher's map is of another shape.
        DataError: training diverged, a picture is in two places, or the teacher knows the test.
    """
    from latentiqa.student.network import Student
    from latentiqa.student.start import begin
    from latentiqa.student.training import StudentTraining

    plan = method.rater
    assert plan is not None
    if report := finished_before(config, plan, folder):
        return report

    lesson = Lesson(config, lessons, method, manifest, parts, keys)
    fitting = fitting_of(config, plan, len(lesson.pictures), folder, make_trainer, logger)
    # Before the teachers' hours: what is wrong here ends the run.
    batch_size = plan.training.pictures_a_pass(fitting.trainer.world_size)
    student = Student(plan.design, seed=config.seed, quality=bool(lessons.terms.map))
    labels, teachers = lesson.ask(make_trainer, student) if lessons.teachers else (None, [])
    pictures = lesson.module(batch_size, labels)
    begins_with = None
    if plan.design.begins_as_ridge and not fitting.last.exists():
        student.to(fitting.trainer.strategy.root_device)
        begins_with = begin(student, pictures, lessons.terms)["val_srcc"]
        log.info("it begins as a ridge regression: validation SRCC %.4f", begins_with)
    training = StudentTraining(student, plan.training, lessons.terms, fitting.an_epoch)
    told = {
        "pictures": {"labelled": len(parts["train"]), "all": len(lesson.pictures)},
        "teachers": teachers,
        "seen_images": lesson.seen(),
        "architecture": student.trunk.architecture,
    }
    return fitting.fit(training, pictures, told, begins_with)


class Lesson:
    """The pictures that a student is shown, and what is said of them.

    Args:
        config: of the run.
        lessons: what it learns from.
        method: with the student's parts.
        manifest: the dataset.
        parts: names of the readable pictures of each part.
        keys: their image keys.

    Attributes:
        pictures: image keys by name of all that are trained on.

    Raises:
        DataError: an unlabelled picture is in one of the dataset's parts.
    """

    def __init__(
        self,
        config: DictConfig,
        lessons: Lessons,
        method: Method,
        manifest: Manifest,
        parts: Mapping[str, Sequence[str]],
        keys: Mapping[str, str],
    ) -> None:
        self.config = config
        self.lessons = lessons
        self.method = method
        self.manifest = manifest
        self.parts = parts
        self.keys = keys
        self.labelled = {name: keys[name] for name in parts["train"]}
        self.pictures = self.labelled | self._unlabelled()

    def _unlabelled(self) -> dict[str, str]:
        if (more := self.lessons.unlabelled) is None:
            return {}
        limit = self.config.limit
        names = more.names if limit is None else thinned(more.names, limit)
        found = inspect(more.subset(names).records, self.config.data)
        refuse_leaks({**self.parts, "unlabelled": list(found)}, {**self.keys, **found})
        return found

    def _views_of(self, key: str) -> list[str]:
        return self.lessons.augment.names(key, self.config.data.flips)

    def ask(
        self, make_trainer: Callable[..., Trainer], student: Student
    ) -> tuple[TeacherLabels, list[Any]]:
        """Let the teachers say what is not in their stores yet.

        Args:
            make_trainer: from `latentiqa.commands.parts.trainer_factory`.
            student: that is to learn it.

        Returns:
            What they say, and what there is to tell of each of them.

        Raises:
            ConfigError: a teacher's map is of another shape than the student's.
            DataError: a teacher knows the test part.
        """
        import torch

        from latentiqa.metric import load_metric
        from latentiqa.student.teachers import Scale, TeacherLabels, TeacherOutputs, scores_in

        for run in self.lessons.teachers:
            self._refuse_knowing(run)
        views = {name: self._views_of(key) for name, key in self.labelled.items()}
        asked = [view for of_picture in views.values() for view in of_picture]
        targets = torch.tensor(
            [self._target(self.manifest.by_name[n].mos) for n in views for _ in views[n]]
        )
        drawing = drawing_of(self.lessons.teachers) if self.lessons.terms.map else []
        stores, scales, told, drawn = [], [], [], None
        for run in self.lessons.teachers:
            metric = load_metric(run.folder, device_of(self.config))
            outputs = TeacherOutputs(metric, run.identity, draws=run in drawing)
            if run in drawing:
                _check_shape(outputs.quality_shape, student.quality_shape)
            store = self._fill(outputs, make_trainer)
            scale = Scale.between(scores_in(store, asked), targets)
            stores.append(store)
            scales.append(scale)
            drawn = store if run in drawing else drawn
            told.append(
                {"name": run.results["name"], "method": run.method, "identity": run.identity}
                | {"slope": scale.slope, "intercept": scale.intercept}
            )
        return TeacherLabels(stores, scales, drawn), told

    def seen(self) -> list[str]:
        """Image keys of what the student learns from by way of others: no test of it either."""
        taught = {key for run in self.lessons.teachers for key in _seen_by(run)}
        return sorted(taught | set(self.pictures.values()))

    def _refuse_knowing(self, run: FinishedRun) -> None:
        """What a teacher was trained on is no test of its student.

        Raises:
            DataError: it knows pictures of the test part.
        """
        from latentiqa.data.images import content_of

        seen = set(map(content_of, _seen_by(run)))
        known = [name for name in self.parts["test"] if content_of(self.keys[name]) in seen]
        if known:
            raise DataError(
                f"teacher={run.folder}: {len(known)} pictures of the test part were in its "
                f"training or validation part, for example {known[0]}; use the split that it was "
                "trained with, or another teacher."
            )

    def _fill(self, outputs: TeacherOutputs, make_trainer: Callable[..., Trainer]) -> FeatureStore:
        augment, flips = self.lessons.augment, self.config.data.flips
        parts = [(self.manifest, self.labelled)]
        if self.lessons.unlabelled is not None:
            rest = {name: key for name, key in self.pictures.items() if name not in self.labelled}
            parts.append((self.lessons.unlabelled, rest))
        stores = []
        for manifest, keys in parts:
            mirrored = keys if flips else ()
            filled = fill_stores(
                self.config, [outputs], augment, manifest, keys, make_trainer, mirrored
            )
            stores.append(filled[0].store)
        # Opened after all has been written.
        return stores[-1]

    def _target(self, mos: float) -> float:
        """The target of a picture, NaN of one without a score."""
        return self.manifest.target(mos) if math.isfinite(mos) else mos

    def module(self, batch_size: int, labels: TeacherLabels | None) -> RatedModule:
        """Training pictures as the student sees them, and those of validation.

        Args:
            batch_size: pictures of a pass on each device.
            labels: what the teachers say.
        """
        from latentiqa.data.datamodule import PictureDataset, RatedModule
        from latentiqa.data.views import InTurn

        data, views = self.config.data, self.method.views
        more = self.lessons.unlabelled
        records = [*self.manifest.records, *(more.records if more is not None else ())]
        wanted = frozenset(v for key in self.pictures.values() for v in self._views_of(key))
        shown = InTurn(self.lessons.augment, views)
        own = {name: self.keys[name] for name in self.parts["val"]}
        return RatedModule(
            PictureDataset(records, self.pictures, self._target, shown, wanted, data.max_pixels),
            PictureDataset(
                self.manifest.records, own, self._target, views, max_pixels=data.max_pixels
            ),
            batch_size=batch_size,
            val_batch_size=data.batch_size,
            num_workers=data.num_workers,
            seed=self.config.seed,
            complete=labels,
        )


def _seen_by(run: FinishedRun) -> list[str]:
    """Image keys of the pictures that a run was fitted or chosen on."""
    from latentiqa.heads import load_head

    return load_head(run.folder / "head")[1]["seen_images"]


def _check_shape(shape: tuple[int, int, int] | None, own: tuple[int, int, int] | None) -> None:
    if shape is not None and shape != own:
        raise ConfigError(
            f"the teacher's map of quality is {shape}, the student's {own}: set "
            f"student.channels={shape[0]} and student.side={shape[1]}."
        )
