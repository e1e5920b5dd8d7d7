#!/usr/bin/env bash
# Segment many videos on a slurm cluster: one task per GPU.
#
#   ./tools/slurm_infer.sh PARTITION JOB_NAME [CONFIG] CHECKPOINT --input VIDEO ... --out DIR [arguments of tools/infer.py]
#
# The same command goes on where a job was stopped. Environment: GPUS (default 4), GPUS_PER_NODE (default: GPUS, at most
# 8), CPUS_PER_TASK (default 5), SRUN_ARGS (more arguments of srun), PORT (default: drawn from the number of the job),
# PYTHON (default python).
set -euo pipefail
if [ $# -lt 3 ]; then
    echo "usage: $0 PARTITION JOB_NAME [CONFIG] CHECKPOINT --input VIDEO ... --out DIR [arguments of infer.py]" >&2
    exit 2
fi
source "$(dirname "${BASH_SOURCE[0]}")/processes.sh"
run_slurm infer.py "$@"
