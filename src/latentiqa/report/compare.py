"""Whether one method is better than another, on one split or over several."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from latentiqa.errors import ConfigError, DataError
from latentiqa.metrics import plcc, srcc
from latentiqa.metrics.comparison import (
    Interval,
    Significance,
    bootstrap_difference,
    corrected_t,
    steiger,
    wilcoxon,
    williams,
)
from latentiqa.report.finished import Finished, Predictions
from latentiqa.report.methods import (
    Dataset,
    by_split,
    evaluated_on,
    figure,
    is_evaluation,
    labels,
    method_of,
    part_of,
    with_figures,
)
from latentiqa.report.tables import ABSENT, TITLES, Table, notes_of

CORRELATION = {"srcc": srcc, "plcc": plcc}
"""What predictions of one split are compared by."""

SHOWN = 5
"""Names of pictures or splits in a message."""

Results = Mapping[str, Finished]
"""One method's results on one dataset, by split."""


class Finding(NamedTuple):
    """A row of the comparison.

    Attributes:
        test: its name.
        values: the figure of each of the two methods.
        difference: of the two.
        interval: of the difference, 95 %.
        significance: statistic and p.
        n: what the test is over.
        sentence: what the test is and what its null hypothesis.
    """

    test: str
    values: tuple[float, float]
    difference: float
    interval: Interval | None
    significance: Significance | None
    n: str
    sentence: str


def compare(finished: Iterable[Finished], metric: str = "srcc") -> Table:
    """Compare two methods on each dataset that both were tested on.

    Over two or more splits that both have: the corrected resampled t-test and Wilcoxon's. Of one
    result each: Williams' and Steiger's tests and a bootstrap interval, over exactly the same
    pictures.

    Args:
        finished: runs and evaluations of two methods.
        metric: a key of ``metrics.test`` in results.json; on one split ``srcc`` or ``plcc``.

    Raises:
        DataError: there are not two methods, they have no dataset, splits or pictures in common,
            or a file is missing or broken.
        ConfigError: on one split, another metric.
    """
    runs = with_figures(finished)
    names = labels(run.result for run in runs)
    if len(names) != 2:
        raise DataError(
            f"results of {len(names)} methods: {'; '.join(names.values())}; expected those of two "
            "(what differs in more than its split is another method): name their folders"
        )
    first, second = (_by_dataset(runs, method) for method in names)
    common = [key for key in first if key in second]
    if not common:
        theirs = (", ".join(map(_title, found)) for found in (first, second))
        told = "; ".join(f"{n}: {t}" for n, t in zip(names.values(), theirs, strict=True))
        raise DataError(
            f"no dataset that both were tested on ({told}); in parentheses part and hash, which "
            "differs where names, scores or references do"
        )
    rows: list[list[str]] = []
    sentences: dict[str, None] = {}
    notes: list[str] = []
    for key in common:
        findings, remarks = _on_dataset(first[key], second[key], metric, [*names.values()])
        data = key[0].name
        rows += [[data, *_cells(found)] for found in findings]
        sentences |= dict.fromkeys(f"{found.test}: {found.sentence}" for found in findings)
        notes += [f"{data}: {remark}" for remark in remarks]
    title = TITLES.get(metric, metric)
    header = ["Dataset", "Test", *names.values(), "Difference", "95 % interval"]
    header += ["Statistic", "p", "n"]
    numeric = [False, False, True, True, True, False, True, True, False]
    notes = [
        f"{title}; differences and statistics are positive where {next(iter(names.values()))} is "
        "higher; p are two-sided",
        *sentences,
        *notes,
    ]
    if len(common) > 1:
        notes.append("p are of each dataset alone, not corrected for their number")
    if alone := [_title(key) for key in {**first, **second} if key not in common]:
        notes.append(f"not compared, since one method alone was tested on it: {', '.join(alone)}")
    return Table(header, rows, numeric, [*notes, *notes_of(run.result for run in runs)])


Tested = tuple[Dataset, str]
"""A dataset and its part."""


def _by_dataset(runs: Sequence[Finished], method: str) -> dict[Tested, Results]:
    groups: dict[Tested, list[Finished]] = defaultdict(list)
    for run in runs:
        if method_of(run.result) == method:
            groups[evaluated_on(run.result), part_of(run.result)].append(run)
    return {key: by_split(group) for key, group in groups.items()}


def _title(tested_on: Tested) -> str:
    data, part = tested_on
    return f"{data.name} ({part}, {data.fingerprint[:6]})"


def _on_dataset(
    first: Results, second: Results, metric: str, names: Sequence[str]
) -> tuple[list[Finding], list[str]]:
    """All tests of two methods on one dataset, and remarks."""
    if len(first) == len(second) == 1:
        [one], [other] = first.values(), second.values()
        return on_one_split(one, other, metric, names), []
    common = [split for split in first if split in second]
    alone = [
        f"{name} alone has {_listed([split for split in found if split not in common], 'split')}"
        for name, found in zip(names, (first, second), strict=True)
        if len(found) > len(common)
    ]
    if len(common) < 2:
        raise DataError(
            f"{next(iter(first.values())).file} and others: {len(common)} splits in common "
            f"({'; '.join(alone)}); expected two or more, or one result of each method"
        )
    pairs = [(first[split], second[split]) for split in common]
    remarks = [f"{told}, left out" for told in alone]
    if len({first[split].result["split_hash"] for split in common}) == 1:
        remarks.append(
            "what differs between the splits is what was trained on; the pictures tested are the "
            "same, and the tests say nothing of others"
        )
    return over_splits(pairs, metric, names), remarks


def over_splits(
    pairs: Sequence[tuple[Finished, Finished]], metric: str, names: Sequence[str]
) -> list[Finding]:
    """Paired tests of a figure over splits.

    Args:
        pairs: results of the two methods on each split.
        metric: a key of ``metrics.test``.
        names: of the methods.

    Raises:
        DataError: on a split one method was tested on more pictures than the other, or the figure
            is undefined.
    """
    values: list[list[float]] = []
    for runs in zip(*pairs, strict=True):
        found = [figure(run, metric) for run in runs]
        if None in found:
            raise DataError(
                f"{runs[found.index(None)].file}: {metric} is undefined there, so that it cannot "
                "be compared over splits; leave that split out"
            )
        values.append([value for value in found if value is not None])
    for runs in pairs:
        pictures = [(run.result["split_hash"], figure(run, "n")) for run in runs]
        if pictures[0] != pictures[1]:
            told = " and ".join(
                f"{name} has {n:g} pictures of the split {split} in {run.file}"
                for name, run, (split, n) in zip(names, runs, pictures, strict=True)
            )
            raise DataError(
                f"{told}: methods are compared on the same pictures only; run both with the same "
                "data.on_error and limit"
            )
    first, second = values
    share = float(np.mean([_test_share(a) for a, _ in pairs]))
    differences = np.subtract(first, second)
    n = f"{len(pairs)} splits"

    def finding(test: str, average: Any, significance: Significance, sentence: str) -> Finding:
        both = (float(average(first)), float(average(second)))
        return Finding(test, both, float(average(differences)), None, significance, n, sentence)

    return [
        finding(
            "corrected t",
            np.mean,
            corrected_t(first, second, share),
            "paired t-test with Nadeau and Bengio's (2003) variance for random splits whose "
            f"training parts overlap, test share {share:.2g}; figures are means; null: the mean "
            "difference over random splits is 0",
        ),
        finding(
            "Wilcoxon",
            np.median,
            wilcoxon(first, second),
            "signed-rank test; figures are medians, the difference that of the differences; null: "
            "the differences are symmetric about 0; it takes splits for independent, which they "
            "are not, so that its p is too small",
        ),
    ]


def on_one_split(
    first: Finished, second: Finished, metric: str, names: Sequence[str]
) -> list[Finding]:
    """Tests of two correlations with the same human scores.

    Args:
        first: result of a method.
        second: result of the other one.
        metric: ``srcc`` or ``plcc``.
        names: of the methods.

    Raises:
        DataError: the pictures differ, or the scores have no correlation.
        ConfigError: another metric.
    """
    if metric not in CORRELATION:
        raise ConfigError(
            f"metric={metric}: on one split methods are compared by {' or '.join(CORRELATION)}"
        )
    a, b = first.predictions, second.predictions
    _refuse_other_pictures(a, b, names)
    place = {name: i for i, name in enumerate(b.names)}
    order = [place[name] for name in a.names]
    if not np.allclose(a.target, b.target[order], rtol=0, atol=1e-6):
        raise DataError(
            f"{a.file} and {b.file}: pictures of the same names have other targets; run both with "
            "the same scores, mos_range and higher_is_better"
        )
    scores, ranks = (a.target, a.pred, b.pred[order]), metric == "srcc"
    try:
        found = williams(*scores, ranks=ranks), steiger(*scores, ranks=ranks)
        interval = bootstrap_difference(*scores, ranks=ranks)
    except DataError as error:
        raise DataError(f"{a.file} and {b.file}: {error}") from error
    both = CORRELATION[metric](scores[1], a.target), CORRELATION[metric](scores[2], a.target)
    title, n = TITLES[metric], f"{len(a.names)} pictures"
    approximate = ", to whose ranks it applies approximately" if ranks else ""
    null = (
        f"null: both methods have the same {title} with the human scores; pictures are taken for "
        "independent, which those of one content are not"
    )

    def finding(
        test: str, interval: Interval | None, significance: Significance | None, sentence: str
    ) -> Finding:
        return Finding(test, both, both[0] - both[1], interval, significance, n, sentence)

    return [
        finding(
            "Williams",
            None,
            found[0],
            "t-test (1959) of two correlations with one variable in common, n - 3 degrees of "
            f"freedom{approximate}; {null}",
        ),
        finding(
            "Steiger",
            None,
            found[1],
            f"z-test (1980) of the same, by Fisher's z{approximate}; the same null",
        ),
        finding(
            "bootstrap",
            interval,
            None,
            "percentile interval of the difference, pictures drawn with replacement 2,000 times",
        ),
    ]


def _refuse_other_pictures(a: Predictions, b: Predictions, names: Sequence[str]) -> None:
    only = [[n for n in x.names if n not in y] for x, y in ((a, {*b.names}), (b, {*a.names}))]
    told = [
        f"{name} alone has {_listed(alone, 'picture')}"
        for name, alone in zip(names, only, strict=True)
        if alone
    ]
    if told:
        raise DataError(
            f"{a.file} and {b.file} are of other pictures: {'; '.join(told)}; on one split methods "
            "are compared on the same pictures only: give results of one split"
        )


def _test_share(run: Finished) -> float:
    """Share of the pictures in the test part of the split that the head was fitted on."""
    parts = run.result.get("trained_n" if is_evaluation(run.result) else "n")
    if isinstance(parts, Mapping) and "test" in parts:
        return parts["test"] / sum(parts.values())
    fractions = (run.result.get("config") or {}).get("fractions")
    if not fractions:
        raise DataError(f"{run.file}: says neither n nor config.fractions, the sizes of its parts")
    return float(fractions[-1])


def _listed(items: Sequence[str], what: str) -> str:
    rest = f" and {len(items) - SHOWN} more" if len(items) > SHOWN else ""
    plural = what if len(items) == 1 else f"{len(items)} {what}s"
    return f"{plural} {', '.join(items[:SHOWN])}{rest}"


def _cells(found: Finding) -> list[str]:
    interval = found.interval and f"[{found.interval.low:+.4f}, {found.interval.high:+.4f}]"
    statistic, p = found.significance or (None, None)
    return [
        found.test,
        *(f"{value:.4f}" for value in found.values),
        f"{found.difference:+.4f}",
        interval or ABSENT,
        ABSENT if statistic is None else f"{statistic:.3f}",
        ABSENT if p is None else _probability(p),
        found.n,
    ]


def _probability(p: float) -> str:
    """Two digits; what underflows is not nought.

    Example:
        >>> _probability(0.04321), _probability(0.0)
        ('0.043', '< 1e-300')
    """
    return "< 1e-300" if p < 1e-300 else f"{p:.2g}"
