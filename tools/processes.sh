# Sourced by dist_*.sh and slurm_*.sh, which differ in their first arguments only.

# run_processes SCRIPT PROCESSES DEFAULT_PORT CPU_FLAG [arguments of SCRIPT]
#
# PROCESSES by torchrun: one per GPU, or CPU processes on a machine without enough GPUs. 0 is one CPU process without a
# launcher, told so by CPU_FLAG. Environment: PORT (default: a free one; DEFAULT_PORT with several machines), PYTHON,
# OMP_NUM_THREADS (CPU threads per process), and for several machines NNODES, NODE_RANK, MASTER_ADDR.
run_processes() {
    local script="$1" count="$2" default_port="$3" cpu_flag="$4" cores
    shift 4
    is_number GPUS "$count" "a number of processes, or 0 for one CPU process"
    prepare_python
    # Threads that wait by spinning slow a shared machine down, many times over as soon as there are more than cores.
    export OMP_WAIT_POLICY="${OMP_WAIT_POLICY:-PASSIVE}"
    if [ "$count" -eq 0 ]; then
        # shellcheck disable=SC2086  # CPU_FLAG holds several words
        exec "$python" "$tools/$script" "$@" $cpu_flag
    fi
    if [ -z "${OMP_NUM_THREADS:-}" ]; then # torchrun would give each process a single thread
        cores="$(nproc 2>/dev/null || getconf _NPROCESSORS_ONLN)"
        export OMP_NUM_THREADS="$((cores > count ? cores / count : 1))"
    fi
    exec "$python" "$tools/launch.py" "$default_port" "$count" "$tools/$script" "$@" --launcher pytorch
}

# run_slurm SCRIPT PARTITION JOB_NAME [arguments of SCRIPT]: GPUS tasks, one per GPU; environment as slurm_train.sh says.
run_slurm() {
    local script="$1" partition="$2" job="$3" gpus="${GPUS:-4}" per_node cpus="${CPUS_PER_TASK:-5}"
    shift 3
    is_positive GPUS "$gpus"
    per_node="${GPUS_PER_NODE:-$((gpus < 8 ? gpus : 8))}"
    is_positive GPUS_PER_NODE "$per_node"
    is_positive CPUS_PER_TASK "$cpus"
    if [ -n "${PORT:-}" ]; then # else the tasks draw one from the number of their job
        is_positive PORT "$PORT"
        [ "$PORT" -le 65535 ] || fail "PORT is '$PORT'; expected a number from 1 to 65535"
        export MASTER_PORT="$PORT"
    fi
    command -v srun >/dev/null || fail "no srun on this machine; submit from a machine of a slurm cluster, or use dist_*.sh"
    prepare_python
    # shellcheck disable=SC2086  # SRUN_ARGS holds several words
    exec srun -p "$partition" --job-name="$job" --gres="gpu:$per_node" --ntasks="$gpus" \
        --ntasks-per-node="$per_node" --cpus-per-task="$cpus" --kill-on-bad-exit=1 ${SRUN_ARGS:-} \
        "$python" -u "$tools/$script" "$@" --launcher slurm
}

# Sets $tools and $python, and lets Python find this package.
prepare_python() {
    tools="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
    python="${PYTHON:-python}"
    command -v "$python" >/dev/null ||
        fail "no program '$python'; activate the environment (source .venv/bin/activate), or set PYTHON"
    export PYTHONPATH="$tools/..${PYTHONPATH:+:$PYTHONPATH}"
}

is_number() { # NAME VALUE EXPECTED
    [[ "$2" =~ ^(0|[1-9][0-9]{0,5})$ ]] || fail "$1 is '$2'; expected $3"
}

is_positive() { # NAME VALUE
    [[ "$2" =~ ^[1-9][0-9]{0,5}$ ]] || fail "$1 is '$2'; expected a number of at least 1"
}

fail() {
    echo "error: $1" >&2
    exit 2
}
