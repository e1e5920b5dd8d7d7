#!/usr/bin/env bash
# Test a checkpoint with several processes: one per GPU, or CPU processes on a machine without enough GPUs.
#
#   ./tools/dist_test.sh CONFIG CHECKPOINT GPUS [arguments of tools/test.py]
#
# GPUS=0 is one CPU process. CHECKPOINT may be none: the untrained network. Environment: PORT (default 29822),
# PYTHON (default python), OMP_NUM_THREADS (CPU threads per process), and for several machines NNODES, NODE_RANK,
# MASTER_ADDR.
set -euo pipefail

if [ "$#" -lt 3 ]; then
    echo "usage: $0 CONFIG CHECKPOINT GPUS [arguments of tools/test.py]" >&2
    exit 2
fi
config="$1" checkpoint="$2" gpus="$3"
if ! [[ "$gpus" =~ ^[0-9]+$ ]]; then
    echo "error: GPUS is '$gpus', expected a number (0: one CPU process)" >&2
    exit 2
fi
here="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
python="${PYTHON:-python}"
export PYTHONPATH="$here/..${PYTHONPATH:+:$PYTHONPATH}"

if [ "$gpus" -eq 0 ]; then
    exec "$python" "$here/test.py" "$config" "$checkpoint" --device cpu "${@:4}"
fi
if [ -z "${OMP_NUM_THREADS:-}" ]; then
    cores="$(nproc 2>/dev/null || getconf _NPROCESSORS_ONLN)"
    export OMP_NUM_THREADS="$((cores > gpus ? cores / gpus : 1))"
fi
exec "$python" "$here/launch.py" \
    --nnodes="${NNODES:-1}" --node_rank="${NODE_RANK:-0}" --master_addr="${MASTER_ADDR:-127.0.0.1}" \
    --nproc_per_node="$gpus" --master_port="${PORT:-29822}" \
    "$here/test.py" "$config" "$checkpoint" --launcher pytorch "${@:4}"
