# Sourced by quickstart.sh, run_tests.sh and .ci/run: puts a Python with everything installed on PATH as `python`.
#
# An active virtual or conda environment is used as it is; otherwise .venv is made in the repository.
# Nothing is installed when the requirements are met already, so calling it again costs a second.

repo_root="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"

activate_environment() {
    if [ -n "${VIRTUAL_ENV:-}" ] && [ -x "$VIRTUAL_ENV/bin/python" ]; then
        export PATH="$VIRTUAL_ENV/bin:$PATH"
        return
    fi
    if [ -n "${CONDA_PREFIX:-}" ] && [ -x "$CONDA_PREFIX/bin/python" ]; then
        export PATH="$CONDA_PREFIX/bin:$PATH"
        return
    fi
    if [ ! -x "$repo_root/.venv/bin/python" ] || ! "$repo_root/.venv/bin/python" -m pip --version >/dev/null 2>&1; then
        local base="${PYTHON:-}"
        if [ -z "$base" ]; then
            base="$(command -v python3 || command -v python || true)"
        fi
        if [ -z "$base" ] || ! "$base" -c 'import sys; sys.exit(sys.version_info < (3, 10))'; then
            echo "error: no Python >= 3.10 found (found: ${base:-none})" >&2
            echo "  what to do: install one, or name it: PYTHON=/path/to/python3 $0" >&2
            exit 2
        fi
        echo "Making $repo_root/.venv with $base"
        if ! "$base" -m venv "$repo_root/.venv" && ! "$base" -m virtualenv "$repo_root/.venv"; then
            echo "error: $base can make no virtual environment" >&2
            echo "  what to do: install its venv module (Debian, Ubuntu: apt-get install python3-venv), or activate one" >&2
            exit 2
        fi
    fi
    export VIRTUAL_ENV="$repo_root/.venv" PATH="$repo_root/.venv/bin:$PATH"
}

# Succeeds when every requirement is met and this checkout is what `import mmseg` finds.
requirements_met() {
    python - "$repo_root" <<'PY'
import importlib.metadata as metadata
import importlib.util
import sys
from pathlib import Path

sys.path.pop(0)  # the current folder: what counts is what is installed

try:
    from pip._vendor.packaging.requirements import Requirement
except ImportError:
    sys.exit(1)
root = Path(sys.argv[1])
for line in [*(root / "requirements.txt").open(), *(root / "requirements-test.txt").open()]:
    line = line.split("#")[0].strip()
    if not line:
        continue
    need = Requirement(line)
    if need.marker is not None and not need.marker.evaluate():
        continue
    names = [need.name, "opencv-python-headless"] if need.name == "opencv-python" else [need.name]
    found = [d.version for n in names for d in metadata.distributions(name=n)]
    if not any(need.specifier.contains(v, prereleases=True) for v in found):
        sys.exit(1)
package = importlib.util.find_spec("mmseg")
sys.exit(package is None or Path(package.origin).parent.parent != root)
PY
}

install_requirements() {
    if requirements_met; then
        return
    fi
    echo "Installing the project and its requirements (once; PyTorch is large)"
    python -m pip install --quiet --disable-pip-version-check --editable "$repo_root[test]"
    # Bare containers lack the libraries that opencv-python links to; the headless build has the same modules.
    if ! python -c 'import cv2' >/dev/null 2>&1; then
        echo "opencv-python does not import here (usually libGL is missing): taking opencv-python-headless instead"
        python -m pip uninstall --quiet --yes opencv-python
        python -m pip install --quiet --disable-pip-version-check opencv-python-headless
        python -c 'import cv2'
    fi
}

activate_environment
install_requirements
