#!/bin/bash
# Joins the shares whose names match a pattern, which is quoted, as they are made later:
#
#   sbatch --dependency=afterok:JOB join.sh train.h5 'train-*-of-16.h5'
#SBATCH --job-name=lmr-join
#SBATCH --cpus-per-task=2
#SBATCH --mem=8G
#SBATCH --time=4:00:00
#SBATCH --output=%x-%j.log

set -eu
# shellcheck disable=SC2086 # the pattern becomes names here
exec lmr join $2 --output "$1"
