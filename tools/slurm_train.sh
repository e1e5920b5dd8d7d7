#!/usr/bin/env bash
# Train on a slurm cluster: one task per GPU.
#
#   ./tools/slurm_train.sh PARTITION JOB_NAME CONFIG [arguments of tools/train.py]
#
# Environment: GPUS (default 4), GPUS_PER_NODE (default: GPUS, at most 8), CPUS_PER_TASK (default 5),
# SRUN_ARGS (more arguments of srun), PORT (default 43412), PYTHON (default python).
set -euo pipefail
if [ $# -lt 3 ]; then
    echo "usage: $0 PARTITION JOB_NAME CONFIG [arguments of tools/train.py]" >&2
    exit 2
fi
partition=$1 job=$2 config=$3
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
gpus=${GPUS:-4}
per_node=${GPUS_PER_NODE:-$((gpus < 8 ? gpus : 8))}
export PYTHONPATH="$root${PYTHONPATH:+:$PYTHONPATH}"
export MASTER_PORT="${PORT:-43412}"
# shellcheck disable=SC2086  # SRUN_ARGS holds several words
exec srun -p "$partition" --job-name="$job" --gres="gpu:$per_node" --ntasks="$gpus" --ntasks-per-node="$per_node" \
    --cpus-per-task="${CPUS_PER_TASK:-5}" --kill-on-bad-exit=1 ${SRUN_ARGS:-} \
    "${PYTHON:-python}" -u "$root/tools/train.py" "$config" --launcher slurm "${@:4}"
