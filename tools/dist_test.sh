#!/usr/bin/env bash
# Test a checkpoint with several processes: ./tools/dist_test.sh [CONFIG] CHECKPOINT GPUS [arguments of tools/test.py]
#
# Without CONFIG the one that the checkpoint carries is taken. GPUS=0 is one CPU process. CHECKPOINT may be none: the
# untrained network of CONFIG. Environment: PORT (default: a free one; 29822 with several machines) and what
# processes.sh names.
set -euo pipefail
files=2
if [[ $# -ge 2 && "$1" != *.py && "$2" =~ ^[0-9]+$ ]]; then
    files=1
fi
if [ $# -le $files ]; then
    echo "usage: $0 [CONFIG] CHECKPOINT GPUS [arguments of tools/test.py]" >&2
    exit 2
fi
source "$(dirname "${BASH_SOURCE[0]}")/processes.sh"
run_processes test.py "${@:files+1:1}" 29822 "--device cpu" "${@:1:files}" "${@:files+2}"
