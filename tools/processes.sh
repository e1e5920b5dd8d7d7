# Sourced by dist_*.sh and slurm_*.sh, which differ in their first arguments only.

# run_processes SCRIPT PROCESSES DEFAULT_PORT CPU_FLAG [arguments of SCRIPT]
#
# PROCESSES by torchrun: one per GPU, or CPU processes on a machine without enough GPUs. 0 is one CPU process without a
# launcher, told so by CPU_FLAG. Environment: PORT (default: a free one; DEFAULT_PORT with several machines), PYTHON,
# OMP_NUM_THREADS (CPU threads per process), MAX_RESTARTS (after a crash; a training goes on from its newest checkpoint;
# default 0), and for several machines NNODES, NODE_RANK, MASTER_ADDR, JOIN_TIMEOUT (seconds in which all must have
# come; default 600).
run_processes() {
    local script="$1" count="$2" default_port="$3" cpu_flag="$4" cores
    shift 4
    is_number GPUS "$count" "a number of processes, or 0 for one CPU process"
    prepare_python
    "$python" -c 'import importlib.util as u, sys; sys.exit(not all(map(u.find_spec, ["torch", "mmengine", "cv2"])))' >/dev/null ||
        fail "$(command -v "$python") lacks packages of requirements.txt; activate the environment (source .venv/bin/activate), set PYTHON, or pip install -e ."
    # Threads that wait by spinning slow a shared machine down, many times over as soon as there are more than cores.
    export OMP_WAIT_POLICY="${OMP_WAIT_POLICY:-PASSIVE}"
    if [ "$count" -eq 0 ]; then
        [ "${MAX_RESTARTS:-0}" = 0 ] || fail "MAX_RESTARTS is '$MAX_RESTARTS' and GPUS is 0; expected a launcher, which restarts: GPUS 1 (a CPU process where there is no GPU)"
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
    local script="$1" partition="$2" job="$3" gpus="${GPUS:-4}" per_node cpus="${CPUS_PER_TASK:-5}" resources
    is_positive GPUS "$gpus"
    per_node="${GPUS_PER_NODE:-$((gpus < 8 ? gpus : 8))}"
    is_positive GPUS_PER_NODE "$per_node"
    is_positive CPUS_PER_TASK "$cpus"
    if [ -n "${PORT:-}" ]; then # else the tasks draw one from the number of their job
        is_positive PORT "$PORT"
        [ "$PORT" -le 65535 ] || fail "PORT is '$PORT'; expected a number from 1 to 65535"
        export MASTER_PORT="$PORT"
    fi
    [ "${MAX_RESTARTS:-0}" = 0 ] || fail "MAX_RESTARTS is '$MAX_RESTARTS'; slurm starts jobs anew: REQUEUE=1, or dist_*.sh in a job of your own"
    [[ "${REQUEUE:-0}" =~ ^[01]$ ]] || fail "REQUEUE is '$REQUEUE'; expected 1 or 0"
    resources=(-p "$partition" "--job-name=$job" "--gres=gpu:$per_node" "--ntasks=$gpus"
        "--ntasks-per-node=$per_node" "--cpus-per-task=$cpus")
    if [ "${REQUEUE:-0}" = 1 ] && [ -z "${SLURM_JOB_ID:-}" ]; then
        prepare_python
        submit "$@"
    fi
    command -v srun >/dev/null || fail "no srun on this machine; submit from a machine of a slurm cluster, or use dist_*.sh"
    prepare_python
    # shellcheck disable=SC2206  # SRUN_ARGS holds several words
    command=(srun "${resources[@]}" --kill-on-bad-exit=1 ${SRUN_ARGS:-}
        "$python" -u "$tools/$script" "${@:4}" --launcher slurm)
    [ "${REQUEUE:-0}" = 1 ] || exec "${command[@]}"
    run_and_requeue
}

# Submit this command as a batch job, which slurm can put back into its queue: a job of srun alone cannot come back.
submit() {
    local words
    is_positive WARNING "${WARNING:-120}"
    command -v sbatch >/dev/null || fail "no sbatch on this machine; submit from a machine of a slurm cluster"
    printf -v words '%q ' "$tools/slurm_${1%.py}.sh" "${@:2}"
    # shellcheck disable=SC2086  # SBATCH_ARGS holds several words
    exec sbatch "${resources[@]}" --requeue --open-mode=append --signal="B:USR1@${WARNING:-120}" ${SBATCH_ARGS:-} \
        --wrap "exec bash $words"
}

# Within a job: run $command, pass on the scheduler's signals, and queue the job anew if it has ended because of one.
run_and_requeue() {
    local child status=0 state
    command -v scontrol >/dev/null || fail "REQUEUE is 1, and there is no scontrol on this machine"
    # to the child, from the moment that there is one; a trap that fails would end this script
    trap 'kill -USR1 $(jobs -p) 2>/dev/null || :' USR1
    trap 'kill -TERM $(jobs -p) 2>/dev/null || :' TERM
    "${command[@]}" &
    child=$!
    while true; do # a signal ends the wait, not the child
        status=0
        wait "$child" || status=$?
        kill -0 "$child" 2>/dev/null || break
    done
    case $status in
        138 | 143) ;; # SIGUSR1, SIGTERM: saved and left
        *) exit "$status" ;;
    esac
    state="$(scontrol show job "$SLURM_JOB_ID" 2>/dev/null || true)"
    if [[ "$state" == *JobState=CANCELLED* ]]; then
        echo "job $SLURM_JOB_ID was cancelled: not queued again" >&2
    elif scontrol requeue "$SLURM_JOB_ID"; then
        echo "job $SLURM_JOB_ID is queued again, and will go on from its newest checkpoint" >&2
    else
        echo "error: job $SLURM_JOB_ID cannot be queued again (scontrol requeue failed); go on with --auto-resume" >&2
    fi
    exit "$status"
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
