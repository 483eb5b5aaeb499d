#!/bin/sh
# Every method trained on each of two databases and tested on both: the matrix of the README.
# sh experiments/cross_database/cross.sh BIQ2021 kodak [key=value of latentiqa train ...]
# What is finished is skipped, what was interrupted goes on.
set -e
biq2021=$1
kodak=$2
shift 2

shared= # of the keys those that evaluating has, too
own=    # those of the methods that train a network themselves
for key in "$@"; do
    shift
    case $key in
    method.*) own="$own $key" && continue ;;
    trainer*=* | paths.*=*) shared="$shared $key" ;;
    data.on_error=* | data.max_pixels=* | data.batch_size=* | data.num_workers=* | data.shard_size=*)
        shared="$shared $key"
        ;;
    esac
    set -- "$@" "$key"
done

trained() { # trains a run and prints its folder: results.json alone would stand without its evaluations
    file=$(latentiqa train "$@" | tail -n 1)
    dirname "${file:?training failed}"
}

runs=
for recipe in "lgdm_tiny_256 limit=null" "dpiqa_full$own" "genziqa_trained$own"; do
    # shellcheck disable=SC2086 # a recipe may come with keys
    run=$(trained experiment=$recipe dataset.root="$biq2021" "$@")
    # shellcheck disable=SC2086 # keys without blanks
    latentiqa evaluate run="$run" dataset=synthetic dataset.root="$kodak" $shared
    # shellcheck disable=SC2086
    other=$(trained experiment=$recipe dataset=synthetic dataset.root="$kodak" split=0 "$@")
    latentiqa evaluate run="$other" dataset=biq2021 dataset.root="$biq2021" part=test split=official $shared
    runs="$runs $run $other"
done
# shellcheck disable=SC2086
latentiqa report $runs view=matrix +kinds.synthetic=synthetic output=experiments/cross_database/table.md
