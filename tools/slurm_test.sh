#!/usr/bin/env bash
# Test a checkpoint on a slurm cluster: one task per GPU.
#
#   ./tools/slurm_test.sh PARTITION JOB_NAME CONFIG CHECKPOINT [arguments of tools/test.py]
#
# Environment: GPUS (default 4), GPUS_PER_NODE (default: GPUS, at most 8), CPUS_PER_TASK (default 5),
# SRUN_ARGS (more arguments of srun), PORT (default 29822), PYTHON (default python).
set -euo pipefail

if [ "$#" -lt 4 ]; then
    echo "usage: $0 PARTITION JOB_NAME CONFIG CHECKPOINT [arguments of tools/test.py]" >&2
    exit 2
fi
here="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
gpus="${GPUS:-4}"
per_node="${GPUS_PER_NODE:-$((gpus < 8 ? gpus : 8))}"
export PYTHONPATH="$here/..${PYTHONPATH:+:$PYTHONPATH}"

export MASTER_PORT="${PORT:-29822}"
# shellcheck disable=SC2086  # SRUN_ARGS holds several words
exec srun -p "$1" --job-name="$2" --gres="gpu:$per_node" --ntasks="$gpus" --ntasks-per-node="$per_node" \
    --cpus-per-task="${CPUS_PER_TASK:-5}" --kill-on-bad-exit=1 ${SRUN_ARGS:-} \
    "${PYTHON:-python}" -u "$here/test.py" "$3" "$4" --launcher slurm "${@:5}"
