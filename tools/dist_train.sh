#!/usr/bin/env bash
# Train with several processes: one per GPU, or CPU processes on a machine without enough GPUs.
#
#   ./tools/dist_train.sh CONFIG GPUS [arguments of tools/train.py]
#
# GPUS=0 is one CPU process. Environment: PORT (default 43412), PYTHON (default python), and for several
# machines NNODES, NODE_RANK, MASTER_ADDR.
set -euo pipefail
if [ $# -lt 2 ]; then
    echo "usage: $0 CONFIG GPUS [arguments of tools/train.py]" >&2
    exit 2
fi
config=$1 gpus=$2
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
python=${PYTHON:-python}
export PYTHONPATH="$root${PYTHONPATH:+:$PYTHONPATH}"
case $gpus in
    '' | *[!0-9]*)
        echo "error: GPUS is '$gpus'; expected a number of processes, or 0 for one CPU process" >&2
        exit 2
        ;;
    0)
        exec "$python" "$root/tools/train.py" "$config" --gpus 0 "${@:3}"
        ;;
esac
# torchrun would give each process a single thread
if [ -z "${OMP_NUM_THREADS:-}" ]; then
    cores=$(nproc 2>/dev/null || getconf _NPROCESSORS_ONLN)
    export OMP_NUM_THREADS=$((cores > gpus ? cores / gpus : 1))
fi
exec "$python" "$root/tools/launch.py" \
    --nnodes="${NNODES:-1}" --node_rank="${NODE_RANK:-0}" --master_addr="${MASTER_ADDR:-127.0.0.1}" \
    --nproc_per_node="$gpus" --master_port="${PORT:-43412}" \
    "$root/tools/train.py" "$config" --launcher pytorch "${@:3}"
