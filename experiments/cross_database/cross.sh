#!/bin/sh
# Every method trained on each of two databases and tested on both: the matrix of the README.
# sh experiments/cross_database/cross.sh BIQ2021 kodak [key=value ...]
# What is finished is skipped, what was interrupted goes on.
set -e
biq2021=$1
kodak=$2
shift 2
runs=
for recipe in "lgdm_tiny_256 limit=null" dpiqa_full genziqa_trained; do
    # shellcheck disable=SC2086 # a recipe may come with a key
    run=$(latentiqa train experiment=$recipe dataset.root="$biq2021" "$@" | tail -n 1)
    latentiqa evaluate run="${run:?training failed}" dataset=synthetic dataset.root="$kodak" "$@"
    # shellcheck disable=SC2086
    other=$(latentiqa train experiment=$recipe dataset=synthetic dataset.root="$kodak" split=0 "$@" | tail -n 1)
    latentiqa evaluate run="${other:?training failed}" dataset=biq2021 dataset.root="$biq2021" part=test split=official "$@"
    # Their folders: a file would stand for itself alone, without its evaluations.
    runs="$runs $(dirname "${run:?training failed}") $(dirname "${other:?training failed}")"
done
# shellcheck disable=SC2086
latentiqa report $runs view=matrix output=experiments/cross_database/table.md
