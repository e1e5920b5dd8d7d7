#!/usr/bin/env bash
# Test a checkpoint with several processes: ./tools/dist_test.sh CONFIG CHECKPOINT GPUS [arguments of tools/test.py]
#
# GPUS=0 is one CPU process. CHECKPOINT may be none: the untrained network. Environment: PORT (default: a
# free one; 29822 with several machines) and what processes.sh names.
set -euo pipefail
if [ $# -lt 3 ]; then
    echo "usage: $0 CONFIG CHECKPOINT GPUS [arguments of tools/test.py]" >&2
    exit 2
fi
source "$(dirname "${BASH_SOURCE[0]}")/processes.sh"
run_processes test.py "$3" 29822 "--device cpu" "$1" "$2" "${@:4}"
