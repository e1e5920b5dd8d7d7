#!/usr/bin/env bash
# dist_test.sh CONFIG CHECKPOINT GPUS [arguments of tools/test.py]
# GPUS: number of processes, one per GPU; CPU processes where there are no GPUs; 0: one CPU process without a launcher.
# Environment: PORT (29822), PYTHON (python), OMP_NUM_THREADS (CPU threads per process).
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
    cores="$("$python" -c 'import os; print(len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count())')"
    export OMP_NUM_THREADS="$((cores > gpus ? cores / gpus : 1))"
fi
exec "$python" -m torch.distributed.run --nproc_per_node="$gpus" --master_port="${PORT:-29822}" \
    "$here/test.py" "$config" "$checkpoint" --launcher pytorch "${@:4}"
