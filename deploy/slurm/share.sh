#!/bin/bash
# One share of the rows for each task of an array, by lmr embed, submit, evaluate or stats:
#
#   sbatch --array=1-16 share.sh embed train.csv
#
# and share 7 of 16 again:
#
#   N_SHARES=16 sbatch --array=7 share.sh embed train.csv
#
# Run in a folder that every node sees by the same name.
#SBATCH --job-name=lmr
#SBATCH --cpus-per-task=8
#SBATCH --mem=16G
#SBATCH --time=24:00:00
#SBATCH --requeue
#SBATCH --output=%x-%A-%a.log

set -u
shares=${N_SHARES:-$SLURM_ARRAY_TASK_COUNT}
code=1
for _ in 1 2 3; do
    lmr "$@" --shard "$SLURM_ARRAY_TASK_ID/$shares" && exit 0
    code=$?
    # Only a signal is worth another run: a picture that crashes its decoder is named by the next one.
    [ "$code" -gt 128 ] || exit "$code"
done
exit "$code"
