#!/bin/bash
# From images to a submission: train.csv is embedded in shares, joined and indexed, then test.csv answered in shares.
#
#   all.sh 16
#
# Run in a folder with model/, train.csv, test.csv and images/ that every node sees by the same name.

set -euo pipefail
shares=${1:-16}
here=$(cd "$(dirname "$0")" && pwd)

queue() { # prints the number of the job
    local job
    job=$(sbatch --parsable "$@")
    echo "${job%%;*}"
}

after() { # of a job that begins once another one has ended well, and is cancelled once that cannot be
    queue --dependency="afterok:$1" --kill-on-invalid-dep=yes "${@:2}"
}

embedded=$(queue --array="1-$shares" "$here/share.sh" embed train.csv)
joined=$(after "$embedded" "$here/join.sh" train.h5 "train-*-of-$shares.h5")
indexed=$(after "$joined" --job-name=lmr-index --cpus-per-task=8 --mem=32G --wrap="lmr build-index")
answered=$(after "$indexed" --array="1-$shares" "$here/share.sh" submit test.csv)
after "$answered" "$here/join.sh" submission.csv "submission-*-of-$shares.json"
