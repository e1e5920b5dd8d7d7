# Sourced by dist_train.sh and dist_test.sh, which differ in their first arguments only.

# run_processes SCRIPT GPUS DEFAULT_PORT CPU_FLAG [arguments of SCRIPT]
#
# GPUS processes by torchrun: one per GPU, or CPU processes on a machine without enough GPUs. 0 is one CPU process without
# a launcher, told so by CPU_FLAG. Environment: PORT, PYTHON, OMP_NUM_THREADS (CPU threads per process), and for several
# machines NNODES, NODE_RANK, MASTER_ADDR.
run_processes() {
    local tools python="${PYTHON:-python}" script="$1" gpus="$2" port="${PORT:-$3}" cpu_flag="$4" cores
    tools="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
    shift 4
    if ! [[ "$gpus" =~ ^[0-9]+$ ]]; then
        echo "error: GPUS is '$gpus'; expected a number of processes, or 0 for one CPU process" >&2
        exit 2
    fi
    export PYTHONPATH="$tools/..${PYTHONPATH:+:$PYTHONPATH}"
    # Threads that wait by spinning slow a shared machine down, many times over as soon as there are more than cores.
    export OMP_WAIT_POLICY="${OMP_WAIT_POLICY:-PASSIVE}"
    if [ "$gpus" -eq 0 ]; then
        exec "$python" "$tools/$script" "$@" $cpu_flag
    fi
    if [ -z "${OMP_NUM_THREADS:-}" ]; then # torchrun would give each process a single thread
        cores="$(nproc 2>/dev/null || getconf _NPROCESSORS_ONLN)"
        export OMP_NUM_THREADS="$((cores > gpus ? cores / gpus : 1))"
    fi
    exec "$python" "$tools/launch.py" \
        --nnodes="${NNODES:-1}" --node_rank="${NODE_RANK:-0}" --master_addr="${MASTER_ADDR:-127.0.0.1}" \
        --nproc_per_node="$gpus" --master_port="$port" \
        "$tools/$script" "$@" --launcher pytorch
}
