"""Every config composes and builds what it says; mistakes end before anything is loaded."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from typing import Any

import pytest
import torch
from command_line import composed, type_in
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import IntervalSweep
from hydra.errors import MissingConfigException
from miniature_datasets import WRITERS, write_huggingface
from miniatures import recipe, recipes, write_autoencoder, write_clip, write_csv, write_image
from omegaconf import OmegaConf

from latentiqa.commands import VERBS
from latentiqa.commands.launch import build
from latentiqa.commands.parts import trainer_factory
from latentiqa.commands.search_path import config_folder
from latentiqa.enhance.ascent import Adam, Ascent, ClippedMomentum
from latentiqa.enhance.edict import EDICT
from latentiqa.enhance.inversion import DDIM
from latentiqa.enhance.space import Pixels
from latentiqa.student.network import Design
from latentiqa.student.trunks import LiteTrunk

CONF = config_folder("conf")
CHOICES = sorted((path.parent.name, path.stem) for path in CONF.glob("*/*.yaml"))
RECIPES = {
    name: verb
    for verb in ("train", "pretrain", "distill", "enhance", "compare")
    for name in recipes(verb)
}
TRAINED = {"rater", "teacher", "training"}
"""Parts of a method that trains a network."""
OTHER_VERBS = {
    **dict.fromkeys(("stage", "alignment"), "pretrain"),
    **dict.fromkeys(("student", "augment"), "distill"),
    **dict.fromkeys(("space", "prior", "fidelity", "ascent"), "enhance"),
}
"""Of the groups that `train` does not have."""
SWEEPS = sorted(path.stem for path in config_folder("sweeps").glob("sweep/*.yaml"))


@pytest.fixture
def filled_in(tmp_path, micro_folder, weights_of) -> Callable[[str, str], list[str]]:
    """What a user must add to some choices, and what lets GPU choices be built without one."""

    def of(group: str, choice: str) -> list[str]:
        match group, choice:
            case "backbone", "folder":
                return [f"backbone.source={micro_folder}"]
            case "dataset", "csv":
                return [f"dataset.path={write_csv(tmp_path)}"]
            case "dataset", "demo":
                return [f"dataset.cache_dir={tmp_path}", "dataset.photos=[moon]"]
            case "dataset", "huggingface":
                folder = write_huggingface(tmp_path / choice)
                return [f"dataset.path={folder}", f"dataset.cache_dir={tmp_path}"]
            case "dataset", "synthetic":
                write_image(tmp_path / choice / "a.png")
                own = [f"dataset.root={tmp_path / choice}", f"dataset.output={tmp_path / 'made'}"]
                return [*own, "dataset.types=[1,jpeg]"]
            case "dataset", "folder":
                for name in ("a.png", "b.png"):
                    write_image(tmp_path / choice / name)
                return [f"dataset.root={tmp_path / choice}"]
            case "dataset", _:
                return [f"dataset.root={WRITERS[choice](tmp_path / choice)}"]
            case "perceptual" | "features", "clip" | "dinov2":
                key = "perceptual" if group == "perceptual" else f"features.{choice}"
                return [f"{key}.source={weights_of(choice)}"]
            case "perceptual", "dists" | "arniqa" | "contrique":
                return [f"perceptual.weights={weights_of(choice)}"]
            case "features", "dists" | "arniqa" | "contrique":
                return [f"features.{choice}.weights={weights_of(choice)}"]
            case "perceptual", "reiqa":
                return [f"perceptual.weights={weights_of('reiqa_quality')}"]
            case "features", "reiqa":
                names = ("reiqa_quality", "reiqa_content")
                return [f"features.{name}.weights={weights_of(name)}" for name in names]
            case "prior", "run":
                return [f"prior.run={tmp_path}"]
            case "prior", "liqe":
                return [f"prior.source={write_clip(tmp_path / choice)}"]
            case "prior", "psi":
                return [f"prior.good={tmp_path}"]
            case "prior", "callable":
                return ["prior.function=quality_models:contrast"]
            case "fidelity", "dists":
                write_image(tmp_path / "vgg.png")  # not read before it is needed
                return [f"fidelity.dists.psi.weights={tmp_path / 'vgg.png'}"]
            case "stage", "diffusion":
                return [f"stage.autoencoder_folder={write_autoencoder(tmp_path / 'vae')}"]
            case "trainer", "gpu":
                return ["trainer.accelerator=cpu"]
            case "trainer", "ddp":
                return ["trainer.accelerator=cpu", "trainer.devices=1"]
        return []

    return of


def test_every_group_of_the_issue_is_there():
    groups = {group for group, _ in CHOICES}
    assert groups >= {
        *("method", "backbone", "timesteps", "layers", "guidance", "perceptual", "features"),
        *("views", "head", "dataset"),
        *("trainer", "logger", "callbacks", "debug", "hydra"),
    }
    choices = {group: {name for g, name in CHOICES if g == group} for group in groups}
    assert choices["trainer"] >= {"cpu", "gpu", "ddp"}
    assert choices["logger"] >= {"csv", "wandb", "none"}
    assert {"demo", "lgdm_biq2021", "tiny_diffusion", "map_enhance", "compare"} <= set(RECIPES)


@pytest.mark.parametrize(("group", "choice"), CHOICES)
def test_every_choice_composes_and_builds(group, choice, filled_in, tmp_path):
    verb = OTHER_VERBS.get(group, "train")
    added = filled_in(group, choice)
    if group == "alignment":  # a part of a stage
        added, group = ["stage=diffusion"], "alignment@stage.alignment"
    config = composed(verb, f"{group}={choice}", *added)
    check = globals()[f"check_{group.split('@')[0]}"]  # a new group needs a check here
    check(config, choice, tmp_path)


def check_method(config: Any, choice: str, _folder: Any) -> None:
    assert config.method.name == config.name == choice
    assert config.method.resolution == config.backbone.resolution
    for part in TRAINED & config.method.keys():
        built = build(config.method[part])
        # What the config spells out is what the classes take by themselves, beside pairs of ours.
        for name, value in vars(type(built)()).items():
            given = getattr(built, name)
            assert (tuple(given) if isinstance(value, tuple) else given) == value or (
                name == "attributes" and len(given) == 4
            )


def check_backbone(config: Any, choice: str, _folder: Any) -> None:
    source = build(config.backbone)
    assert source.name == choice
    assert source.is_embedded == choice.startswith("tiny")
    if choice == "ldm_celebahq":  # safetensors are in a pull request alone
        assert source.revision == "refs/pr/7"
    elif not source.is_embedded and choice != "folder":
        assert re.fullmatch(r"[0-9a-f]{40}", source.revision)


def check_stage(config: Any, _choice: str, folder: Any) -> None:
    stage = build(config.stage, seed=0, grids=str(folder))
    # Small enough for the package, in half precision.
    assert 2 * sum(stage.parameter_counts().values()) < 40e6


def check_student(config: Any, choice: str, _folder: Any) -> None:
    design = build(config.student)
    assert (design.score == "map") == (choice == "efficientnet_b7")
    if choice == "lite0":
        # What the config spells out is what the classes take by themselves.
        assert design == Design(LiteTrunk(), pooling="mean_std_correlation")
    else:
        assert choice.partition("_")[0] in design.trunk.weights


def check_augment(config: Any, choice: str, _folder: Any) -> None:
    augment = build(config.augment)
    image = torch.rand(3, 600, 530)
    if choice == "none":
        assert torch.equal(augment(image, "a.png")[0], image)
    else:
        assert augment(image, "a.png").shape == (4, 3, 512, 512)


def check_alignment(config: Any, choice: str, _folder: Any) -> None:
    alignment = build(config.stage.alignment)
    assert type(alignment).__name__ == {"urepa": "URepa", "linear": "LinearAlignment"}[choice]


def check_space(config: Any, choice: str, _folder: Any) -> None:
    space = build(config.space)
    if choice == "pixels":
        assert space == Pixels()
        return
    chains = {"edict": EDICT(), "ddim": DDIM(), "latents": DDIM(at=0)}
    assert space.chain == (chains | {"fixed_point": DDIM(iterations=5)})[choice]


def check_prior(config: Any, choice: str, _folder: Any) -> None:
    kinds = {"psi": "PsiPrior", "callable": "FunctionPrior", "liqe": "LIQEPrior"}
    prior = build(config.prior)
    assert type(prior).__name__ == kinds.get(choice, "RunPrior")
    assert (prior.scale() is None) == (choice not in ("lgdm", "liqe"))


def check_fidelity(config: Any, choice: str, _folder: Any) -> None:
    terms = build(config.fidelity)
    assert list(terms) == (["nlpd", "lpips"] if choice == "mix" else [choice])
    kinds = {"nlpd": "NLPD", "mse": "MSE"}
    for name, term in terms.items():
        assert type(term).__name__ == kinds.get(name, "Perceptual")


def check_ascent(config: Any, choice: str, _folder: Any) -> None:
    ascent = build(config.ascent)
    # What the configs spell out is what the classes take by themselves.
    assert ascent == Ascent(Adam() if choice == "adam" else ClippedMomentum())


def check_timesteps(config: Any, choice: str, _folder: Any) -> None:
    used = build(config.timesteps).used
    assert len(used) == {"single": 1, "tiny": 3, "noise_free": 3, "lgdm": 10}[choice]
    assert build(config.timesteps).noised == (choice != "noise_free")
    assert min(used) == 10
    assert max(used) <= 100


def check_layers(config: Any, _choice: str, _folder: Any) -> None:
    assert list(build(config.layers).patterns) == list(config.layers.patterns)


def check_guidance(config: Any, choice: str, _folder: Any) -> None:
    guidance = build(config.guidance)
    names = {"none": "NoGuidance", "pmg": "PMG", "dps": "DPS", "psld": "PSLD", "mpgd": "MPGD"}
    names |= {"freedom": "FreeDoM"}
    assert type(guidance).__name__ == names[choice]
    assert ("psi" in config.guidance) == (choice in ("pmg", "freedom"))
    if "psi" in config.guidance:
        assert type(guidance.psi).__name__ == "BackboneFeatures"
    # What the configs spell out is what the classes take by themselves.
    own = {"psi": guidance.psi} if "psi" in config.guidance else {}
    assert guidance == type(guidance)(**own)


def check_perceptual(config: Any, choice: str, _folder: Any) -> None:
    names = {"none": "NoneType", "nss": "NSS"}
    names |= dict.fromkeys(("sd", "blocks"), "BackboneFeatures")
    names |= {"lpips": "LPIPSFeatures", "efficientnet": "EfficientNetFeatures"}
    names |= {"dists": "DISTSFeatures", "clip": "CLIPFeatures", "dinov2": "DINOv2Features"}
    names |= dict.fromkeys(("arniqa", "contrique", "reiqa"), "ResNetFeatures")
    assert type(build(config.perceptual)).__name__ == names[choice]
    assert type(build(config.guidance).psi).__name__ == names[choice]


def check_features(config: Any, choice: str, _folder: Any) -> None:
    names = {"nss": "NSS", "lpips": "LPIPSFeatures", "dists": "DISTSFeatures"}
    names |= {"clip": "CLIPFeatures", "dinov2": "DINOv2Features"}
    names |= dict.fromkeys(
        ("arniqa", "contrique", "reiqa_quality", "reiqa_content"), "ResNetFeatures"
    )
    names |= dict.fromkeys(("efficientnet", "efficientnet_lite2"), "EfficientNetFeatures")
    several = {"none": [], "nss_efficientnet": ["nss", "efficientnet"]}
    several["efficientnets"] = ["efficientnet", "efficientnet_lite2"]
    several["reiqa"] = ["reiqa_quality", "reiqa_content"]
    psis = {name: build(psi) for name, psi in config.features.items()}
    assert list(psis) == several.get(choice, [choice])
    for name, psi in psis.items():
        assert type(psi).__name__ == names[name]
        assert psi.widths(config.pooling)


def check_views(config: Any, choice: str, _folder: Any) -> None:
    views = build(config.views)
    assert type(views).__name__ == "".join(word.capitalize() for word in choice.split("_"))
    numbers = {"random_crops": 5, "grid_crops": 6, "multi_scale": 15}
    assert views.number == numbers.get(choice, 1)
    assert choice == "whole" or views.size == config.backbone.resolution


def check_head(config: Any, choice: str, _folder: Any) -> None:
    head = build(config.head)
    classes = {"ridge": "RidgeHead", "quadratic": "QuadraticRidgeHead", "pooled": "PooledHead"}
    assert type(head).__name__ == classes.get(choice, "MLPHead")
    assert (choice == "linear") == (head.arguments.get("hidden") == [])


def check_dataset(config: Any, choice: str, _folder: Any) -> None:
    manifest = build(config.dataset)
    assert manifest.dataset == {"csv": "scores"}.get(choice, choice)
    assert len(manifest) >= 2


def check_trainer(config: Any, choice: str, _folder: Any) -> None:
    trainer = trainer_factory(config)()
    assert trainer.num_devices == 1
    assert type(trainer.strategy).__name__ == (
        "DDPStrategy" if choice == "ddp" else "SingleDeviceStrategy"
    )


def check_logger(config: Any, choice: str, folder: Any) -> None:
    names = {"csv": "CSVLogger", "wandb": "WandbLogger"}
    if choice == "none":
        assert not config.logger
    else:
        assert type(build(config.logger, save_dir=str(folder))).__name__ == names[choice]


def check_callbacks(config: Any, choice: str, _folder: Any) -> None:
    callbacks = [build(callback) for callback in (config.callbacks or {}).values()]
    assert len(callbacks) == {"none": 0, "default": 1}[choice]


def check_debug(config: Any, _choice: str, _folder: Any) -> None:
    assert config.fast_dev_run is True
    assert config.limit == 8


def check_hydra(config: Any, choice: str, _folder: Any) -> None:
    own = composed("train", f"hydra={choice}", hydra_too=True).hydra
    assert own.output_subdir is None
    assert own.run.dir == "."
    assert "hydra" not in config


@pytest.mark.parametrize("verb", sorted(VERBS))
def test_every_verb_composes(verb):
    overrides = ["dataset=demo"] if verb in ("evaluate", "split") else []
    assert "paths" in composed(verb, *overrides)


@pytest.mark.parametrize(("name", "verb"), RECIPES.items())
def test_every_experiment_states_its_method(name, verb):
    choices = composed(verb, f"experiment={name}", hydra_too=True).hydra.runtime.choices
    config = composed(verb, f"experiment={name}")
    assert config.name == name
    # Of a group that is stated twice the later choice counts: the recipe's own, not its base's.
    stated = dict(re.findall(r"^  - override /(\w+): (\w+)$", recipe(name), flags=re.MULTILINE))
    method = "method backbone timesteps layers perceptual guidance features views head dataset"
    groups = {"train": method.split(), "pretrain": ["stage", "dataset"]}
    groups["distill"] = ["student", "augment", "views", "dataset"]
    groups["enhance"] = ["backbone", "space", "prior", "fidelity", "ascent"]
    groups["compare"] = ["backbone", "space", "fidelity", "ascent"]
    assert {group: choices[group] for group in groups[verb]} == stated
    for part in TRAINED & config.get("method", {}).keys():
        build(config.method[part])


@pytest.mark.parametrize("name", SWEEPS)
def test_every_sweep_names_keys_that_exist(name):
    params = composed("train", f"sweep={name}", hydra_too=True).hydra.sweeper.params
    assert params
    overrides = [OverridesParser.create().parse_override(f"{k}={v}") for k, v in params.items()]
    first = [f"{override.key_or_group}={_first_value(override)}" for override in overrides]
    build(composed("train", *first).guidance)


@pytest.mark.parametrize(
    ("sweep", "study"), [("pmg_controls", "pmg_ablation"), ("genziqa", "genziqa")]
)
def test_the_sweep_of_a_study_has_every_recipe_of_it(sweep, study):
    # As the studies' pages say it: with a key that the default dataset does not have.
    overrides = [f"sweep={sweep}", "dataset.root=photos"]
    params = composed("train", *overrides, hydra_too=True).hydra.sweeper.params
    study = config_folder("experiments") / study / "experiment"
    names = params.experiment.split(",")
    assert sorted(names) == sorted(path.stem for path in study.glob("*.yaml"))


def _first_value(override: Any) -> Any:
    if isinstance(override.value(), IntervalSweep):
        return override.value().start
    return (
        next(override.sweep_string_iterator()) if override.is_sweep_override() else override.value()
    )


def test_wandb_sweeps_name_keys_that_exist():
    config = composed("train", "experiment=demo", "logger=wandb", "logger.offline=false")
    for path in config_folder("sweeps").glob("wandb/*.yaml"):
        for key in OmegaConf.load(path).parameters:
            assert OmegaConf.select(config, key) is not None, f"{path}: {key}"


@pytest.mark.parametrize(
    ("typo", "told"),
    [
        ("data.batchsize=4", "data.batchsize: no such key; `latentiqa train --cfg job` shows"),
        ("nonsense=4", "nonsense: no such key; `latentiqa train --cfg job` shows"),
        ("dataset.root=x", "dataset.root: the dataset that is chosen has no such key; dataset=agi"),
        ("space=edict", "space=: latentiqa train has no such group; compare and enhance have it."),
        ("experiment=dpiqa_student", "experiment=dpiqa_student chooses student=: latentiqa train "),
        ("photos/", "photos/: latentiqa train takes key=value and no paths; `latentiqa train --h"),
        ("--cfg job photos", "photos: latentiqa train takes key=value and no paths"),
        ("guidance=pmgg", "guidance=pmgg: expected one of pmg, dps, freedom, mpgd, none, psld."),
        ("views=", "views=: expected one of centre, grid_crops"),
        ("dataset=koniq", "dataset=koniq: expected one of koniq10k"),
        ("experiment=dmeo", "experiment=dmeo: expected one of demo, alignment_linear"),
        ("-m guidance=none,pmgg", "guidance=pmgg: expected one of pmg, dps"),
        ("views=square,centre", "Ambiguous value for argument 'views=square,centre'"),
        ("split=range(0", "no viable alternative at input 'range(0'"),
        ("~head", "head is not in the config: it is needed"),
    ],
)
def test_typos_are_told_in_a_line(typo, told, nothing_loaded):
    outcome = type_in("train", *typo.split())
    assert outcome.status == 1
    assert outcome.err.startswith(f"error: {told}")
    assert outcome.err.count("\n") == 1


NULLS = {group: OTHER_VERBS.get(group, "train") for group, _ in CHOICES}
NULLS |= {"experiment": "train", "sweep": "train"}


@pytest.mark.parametrize(("group", "verb"), NULLS.items())
def test_a_group_that_is_null_is_told_its_choices(group, verb, nothing_loaded):
    choices = [name for g, name in CHOICES if g == group] or [RECIPES, SWEEPS][group == "sweep"]
    outcome = type_in(verb, f"{group}=null")
    assert outcome.status == 1
    told = f"{group}=null: expected one of {', '.join(sorted(choices))}; leave {group}= out for"
    assert outcome.err == f"error: {told} the default.\n"


def test_a_null_among_the_values_of_a_sweep_is_told_before_the_first_run(nothing_loaded):
    assert "error: views=null: expected one of" in type_in("train", "-m", "views=square,null").err


def test_hydras_switch_for_whole_tracebacks_still_works(monkeypatch, nothing_loaded):
    monkeypatch.setenv("HYDRA_FULL_ERROR", "1")
    with pytest.raises(MissingConfigException):
        type_in("train", "guidance=pmgg")
    assert os.environ["HYDRA_FULL_ERROR"] == "1"


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        (["guidance.route=x"], "guidance.route='x': expected"),
        (["guidance.measurement.weight=-1"], "weight=-1"),
        (["guidance.perceptual.normalisation=x"], "normalisation='x'"),
        (["perceptual=nss", "perceptual.window=4"], "window=4"),
        (["perceptual.timestep=1000"], "perceptual.timestep=1000"),
        (["timesteps.values=[10,20]"], "timesteps.values=[10, 20]: expected strictly falling"),
        (["timesteps.use=[11]"], "timesteps.use=[11]: expected some of"),
        (["timesteps.eta=2"], "timesteps.eta=2"),
        (["timesteps.eta=x"], "eta: x"),
        (["layers.patterns=[xx]"], "'xx' names no stage"),
        (["pooling=max"], "pooling='max': expected one of"),
        (["pooling=null"], "pooling=None: expected one pooling for all, such as mean_std, or one"),
        (["features=nss", "pooling={lgdm:mean}"], "or one for each of what computes features: lg"),
        (["features=nss", "pooling={lgdm:mean,nss:max}"], "pooling='max': expected one of"),
        (["pooling={lgdm:mean,nss:mean}"], "each of what computes features: lgdm."),
        (["method=psi"], "method=psi with features=none: there is nothing to compute"),
        (["method=psi", "features=nss", "method.resolution=x"], "views.size=x: expected"),
        (["method=psi", "features=nss", "method.resolution=0"], "views.size=0: expected"),
        (["method.name=x"], "method.name='x': expected lgdm, latents, psi, dpiqa"),
        (["method.name=student"], "a student is trained by latentiqa distill"),
        (["features=nss", "features.nss.scales=0"], "scales=0: expected 1 or more"),
        (["features=efficientnet", "features.efficientnet.blocks=[x]"], "expected one or more of"),
        (["features=efficientnet", "features.efficientnet.variant=b0"], "one of lite0, lite2"),
        (["features=lpips", "features.lpips.net=x"], "net='x': expected one of"),
        (["perceptual=dists"], "perceptual.weights is not set"),
        (["features=arniqa"], "features.arniqa.weights is not set"),
        (["features=arniqa", "features.arniqa.weights=nowhere"], "nowhere: no such file; expected"),
        (["perceptual=clip", "perceptual.revision=main"], "expected a commit of the hub"),
        (["perceptual=dinov2", "perceptual.source=nowhere"], "no such folder, and not a hub id"),
        (["+features.sd=${perceptual}"], "features.sd=BackboneFeatures: expected a psi with"),
        (["backbone.dtype=x"], "backbone.dtype='x': expected one of"),
        (["backbone.resolution=100"], "backbone.resolution=100"),
        (["backbone=folder"], "backbone.source is not set"),
        (["backbone=folder", "backbone.source=nowhere"], "no such folder"),
        (["data.on_error=x"], "data.on_error='x': expected 'stop' or 'skip'"),
        (["data.batch_size=0"], "data.batch_size=0: expected an integer >= 1"),
        (["data.batch_size=x"], "data.batch_size=x: expected an integer >= 1"),
        (["data.num_workers=-1"], "data.num_workers=-1"),
        (["data.shard_size=0"], "data.shard_size=0"),
        (["data.max_pixels=0"], "data.max_pixels=0: expected an integer >= 1"),
        (["data.max_pixels=x"], "data.max_pixels=x: expected an integer >= 1"),
        (["data.flips=maybe"], "data.flips='maybe': expected true or false"),
        (["views=grid_crops", "views.crops=0"], "views.crops=0: expected an integer >= 1"),
        (["views=random_crops", "views.short_side=8"], "views.short_side=8: expected"),
        (["views=short_side", "views.multiple=0"], "views.multiple=0: expected"),
        (["~views"], "views=null: expected one of the choices"),
        (["split=none"], "split='none': expected a seed"),
        (["split=-1"], "split=-1: expected a seed"),
        (["split=seed-3.json"], "split='seed-3.json': expected a seed (0, 1, ...), official, or"),
        (["fractions=[0.5,0.5]"], "expected three positive shares"),
        (["fractions=0.5"], "fractions=0.5: expected three shares"),
        (["fractions=[a,b,c]"], "expected three shares"),
        (["split=official", "validation_fraction=2"], "validation_fraction=2"),
        (["split=official", "validation_fraction=x"], "validation_fraction='x'"),
        (["head.alphas=[]"], "alphas=[]"),
        (["head=mlp", "head.dropout=1"], "dropout=1"),
        (["head=mlp", "head.lr=x"], "lr: x"),
        (["limit=2"], "limit=2: expected at least 3"),
        (["limit=x"], "limit='x': expected an integer"),
        (["seed=x"], "seed='x': expected an integer"),
        (["dataset=csv"], "dataset.path is not set"),
        (["dataset=csv", "dataset.path=nowhere.csv"], "nowhere.csv: no such file"),
        (["dataset=biq2021", "dataset.root=nowhere"], "expected the authors' layout"),
        (["dataset.photos=[nobody]"], "photos=('nobody',): expected some of"),
        (["trainer.accelerator=x"], "accelerator: x"),
        (["trainer.devices=0"], "devices: 0"),
        (["force=maybe"], "force='maybe': expected true or false"),
        (["prompt=null"], "prompt=None: expected text"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_wrong_values_are_explained_before_anything_is_loaded(
    wrong, told, nothing_loaded, tmp_path, scores_csv
):
    dataset = [] if any("dataset" in override for override in wrong) else ["dataset=csv"]
    if dataset:
        dataset.append(f"dataset.path={scores_csv}")
    outcome = type_in(
        "train", *dataset, f"paths.runs={tmp_path}", f"paths.store={tmp_path}", *wrong
    )
    assert outcome.status == 1
    assert told in " ".join(outcome.err.split())
    assert "error:" in outcome.err
    assert "Traceback" not in outcome.err
    assert not outcome.out


def test_the_first_thing_to_type_needs_no_value():
    """Nothing in `latentiqa train experiment=demo` is missing."""
    config = composed("train", "experiment=demo")
    assert not OmegaConf.missing_keys(config)


def test_a_recipe_that_is_no_yaml_is_explained(tmp_path, nothing_loaded):
    recipe = tmp_path / "experiment" / "mine.yaml"
    recipe.parent.mkdir()
    recipe.write_text("# @package _global_\nseed: 1\nseed: 2\n")
    outcome = type_in("train", "--config-dir", str(tmp_path), "experiment=mine")
    assert outcome.status == 1
    assert f'"{recipe}", line 3' in outcome.err
    assert "found duplicate key seed" in outcome.err
    assert "Traceback" not in outcome.err
