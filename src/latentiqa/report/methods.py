"""Which results are one method's: the same recipe on the same training data, whatever the split."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from latentiqa.errors import DataError
from latentiqa.report.finished import Finished
from latentiqa.runs import NOT_IN_SIGNATURE, signature
from latentiqa.training import RATERS

NEEDED = ("name", "signature", "dataset", "dataset_fingerprint", "split_hash")
NEEDED_OF_EVALUATIONS = ("run", "trained_on", "trained_fingerprint", "trained_split_hash", "part")

MOST_FACTS = 3
"""A name with more facts behind it would be no name."""


class Dataset(NamedTuple):
    """A dataset as a result knows it.

    Attributes:
        name: short name.
        fingerprint: hash of its pictures' names, scores and references.
    """

    name: str
    fingerprint: str


def is_evaluation(result: Mapping[str, Any]) -> bool:
    """Whether it is of `latentiqa evaluate`."""
    return result.get("kind") == "evaluate"


def with_figures(finished: Iterable[Finished]) -> list[Finished]:
    """Those with figures of a test, each figure once.

    Left out are other verbs' results, and evaluations of a run on its own test part where the run
    itself is there.

    Raises:
        DataError: there are none, or a file does not say what it is a result of.
    """
    kept = [run for run in finished if isinstance(_metrics(run).get("test"), Mapping)]
    if not kept:
        raise DataError(
            "none of the results has figures of a test part; expected those of latentiqa train "
            "or evaluate"
        )
    for run in kept:
        needed = [*NEEDED, *(NEEDED_OF_EVALUATIONS if is_evaluation(run.result) else ())]
        if absent := [key for key in needed if run.result.get(key) is None]:
            raise DataError(
                f"{run.file}: does not say its {', '.join(absent)}, as an older version's; run "
                "that command again with force=true, or leave the file out"
            )
    trained = {run.result["signature"] for run in kept if not is_evaluation(run.result)}
    return [run for run in kept if not (_repeats(run.result) and run.result["run"] in trained)]


def _metrics(run: Finished) -> Mapping[str, Any]:
    metrics = run.result.get("metrics")
    return metrics if isinstance(metrics, Mapping) else {}


def _repeats(result: Mapping[str, Any]) -> bool:
    """Whether it is an evaluation of a run on its own test part."""
    return (
        is_evaluation(result)
        and result["part"] == "test"
        and result["split_hash"] == result["trained_split_hash"]
        and result["dataset_fingerprint"] == result["trained_fingerprint"]
    )


def evaluated_on(result: Mapping[str, Any]) -> Dataset:
    """The dataset that the figures are of."""
    return Dataset(result["dataset"], result["dataset_fingerprint"])


def trained_on(result: Mapping[str, Any]) -> Dataset:
    """The dataset that the head was fitted on."""
    if is_evaluation(result):
        return Dataset(result["trained_on"], result["trained_fingerprint"])
    return evaluated_on(result)


def part_of(result: Mapping[str, Any]) -> str:
    """The part of the dataset that the figures are of."""
    return result.get("part") or "test"


def split_of(result: Mapping[str, Any]) -> str:
    """Hash of the split that the head was fitted on."""
    if is_evaluation(result):
        # Older results name the run alone, which has one split too.
        return result.get("trained_split_hash") or result.get("run") or ""
    return result.get("split_hash") or ""


def method_of(result: Mapping[str, Any]) -> str:
    """Hash of what a run's results share with those of other splits, and with its evaluations.

    Example:
        >>> run = {"name": "lgdm", "dataset_fingerprint": "f", "config": {"split": 0}}
        >>> method_of(run) == method_of(run | {"config": {"split": 1}})
        True
        >>> method_of(run) == method_of(run | {"config": {"split": "official"}})
        False
    """
    config = dict(result.get("config") or {})
    config.pop("evaluation", None)
    config["split"] = "official" if config.get("split") == "official" else "random"
    key = "trained_fingerprint" if is_evaluation(result) else "dataset_fingerprint"
    return signature(
        config,
        name=result.get("name") or "",
        trained_fingerprint=result.get(key) or "",
        store_key=_features(result),
    )


def _features(result: Mapping[str, Any]) -> str:
    """What the features were computed by.

    The store of a rater is named by its weights, which differ from split to split.
    """
    method = (result.get("config") or {}).get("method") or {}
    key = "backbone" if method.get("name") in RATERS else "store_key"
    return result.get(key) or ""


def figure(run: Finished, key: str) -> float | None:
    """A figure under ``metrics.test``; ``None`` where it is undefined.

    Raises:
        DataError: there is no such figure.
    """
    test = _metrics(run)["test"]
    value = test.get(key, "")
    if isinstance(value, bool | str | Mapping | list):
        known = [name for name, found in test.items() if not isinstance(found, bool)]
        raise DataError(f"{run.file}: no figure {key}; it has {', '.join(known)}")
    return None if value is None or not math.isfinite(value) else value


def dataset_titles(datasets: Sequence[Dataset]) -> dict[Dataset, str]:
    """A title for each: its name, and what tells it from another of that name.

    Example:
        >>> list(dataset_titles([Dataset("my", "1234567"), Dataset("my", "89abcdef")]).values())
        ['my 123456', 'my 89abcd']
    """
    counts = Counter(data.name for data in datasets)
    return {
        data: data.name if counts[data.name] == 1 else f"{data.name} {data.fingerprint[:6]}"
        for data in datasets
    }


def by_split(runs: Iterable[Finished]) -> dict[str, Finished]:
    """Results of one method on one dataset by the split that the head was fitted on.

    Raises:
        DataError: there are two of one split.
    """
    found: dict[str, Finished] = {}
    for run in runs:
        other = found.setdefault(split_of(run.result), run)
        if other is not run:
            parts = " and ".join(part_of(r.result) for r in (other, run))
            raise DataError(
                f"{other.file} and {run.file} are results of one method, split and dataset (parts "
                f"{parts}); name the files that you want instead of their folder"
            )
    return found


def labels(results: Iterable[Mapping[str, Any]]) -> dict[str, str]:
    """A name for each method: the run's, and what tells it from others of that name.

    Args:
        results: contents of results files.

    Returns:
        ``method_of`` -> name, in the order in which the methods come first. Config groups tell
        methods apart, else single values, else the signature of the first run.

    Example:
        >>> runs = [{"name": "demo", "config": {"choices": {"guidance": g}}} for g in ("pmg", "no")]
        >>> runs[1]["store_key"] = "other"
        >>> list(labels(runs).values())
        ['demo guidance=pmg', 'demo guidance=no']
    """
    first: dict[str, Mapping[str, Any]] = {}
    for result in results:
        first.setdefault(method_of(result), result)
    names = {method: str(result.get("name")) for method, result in first.items()}
    for describe in (_choices, _values, _signature):
        groups: dict[str, list[str]] = defaultdict(list)
        for method, name in names.items():
            groups[name].append(method)
        for methods in groups.values():
            facts = [describe(first[method]) for method in methods]
            for method, words in zip(methods, _differing(facts), strict=True):
                names[method] += words
    return names


def _differing(facts: list[dict[str, str]]) -> list[str]:
    """What is not the same in all of them, as words to add to each."""
    keys = dict.fromkeys(key for fact in facts for key in fact)
    varied = [key for key in keys if len({fact.get(key) for fact in facts}) > 1]
    if len(varied) > MOST_FACTS:
        return [""] * len(facts)
    return ["".join(f" {key}={fact[key]}" for key in varied if key in fact) for fact in facts]


def _choices(result: Mapping[str, Any]) -> dict[str, str]:
    choices = (result.get("config") or {}).get("choices") or {}
    return {key: str(choice) for key, choice in choices.items() if choice is not None}


def _values(result: Mapping[str, Any]) -> dict[str, str]:
    """Single values of the config that change the numbers."""
    hidden = (*NOT_IN_SIGNATURE, "split", "evaluation")
    leaves: dict[str, str] = {}

    def collect(path: str, value: Any) -> None:
        if path in hidden:
            return
        if isinstance(value, Mapping):
            for key, item in value.items():
                collect(f"{path}.{key}" if path else str(key), item)
        else:
            leaves[path] = "null" if value is None else str(value)

    collect("", result.get("config") or {})
    return leaves


def _signature(result: Mapping[str, Any]) -> dict[str, str]:
    return {"signature": str(result.get("signature"))}
