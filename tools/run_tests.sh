#!/usr/bin/env bash
# Runs all tests in the project's environment (made on the first call).
# Usage: ./tools/run_tests.sh [pytest arguments]       e.g. ./tools/run_tests.sh tests/models -k focal
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/env.sh"
cd "$repo_root"
export OMP_NUM_THREADS="${OMP_NUM_THREADS:-1}"
exec python -m pytest -n "${TEST_PROCESSES:-2}" --dist worksteal "$@"
