#!/usr/bin/env bash
# Train on a slurm cluster: one task per GPU.
#
#   ./tools/slurm_train.sh PARTITION JOB_NAME CONFIG [arguments of tools/train.py]
#
# Environment: GPUS (default 4), GPUS_PER_NODE (default: GPUS, at most 8), CPUS_PER_TASK (default 5), SRUN_ARGS (more
# arguments of srun), PORT (default: drawn from the number of the job), PYTHON (default python), JOIN_TIMEOUT (default
# 600: seconds in which all tasks must have started).
#
# REQUEUE=1 submits a batch job that saves and returns to the queue when it is preempted or its time is up, and then goes
# on from its newest checkpoint: WARNING (default 120) seconds before the end slurm tells it; SBATCH_ARGS has more
# arguments of sbatch ("--time=4:00:00"). Within a job that you have submitted yourself it does the same from there on.
set -euo pipefail
if [ $# -lt 3 ]; then
    echo "usage: $0 PARTITION JOB_NAME CONFIG [arguments of tools/train.py]" >&2
    exit 2
fi
source "$(dirname "${BASH_SOURCE[0]}")/processes.sh"
run_slurm train.py "$@"
