#!/bin/sh
# Every method trained on each of two databases and tested on both: the matrix of the README.
# sh experiments/cross_database/cross.sh BIQ2021 kodak
# What is finished is skipped, what was interrupted goes on.
set -e
biq2021=$1
kodak=$2
for method in lgdm dpiqa genziqa; do
    run=$(latentiqa train experiment=cross_${method}_biq2021 dataset.root="$biq2021" | tail -n 1)
    latentiqa evaluate run="$run" dataset=synthetic dataset.root="$kodak"
    run=$(latentiqa train experiment=cross_${method}_kodak dataset.root="$kodak" | tail -n 1)
    latentiqa evaluate run="$run" dataset=biq2021 dataset.root="$biq2021" part=test split=official
done
latentiqa report runs/cross_* view=matrix output=experiments/cross_database/table.md
