#!/bin/bash
# Makes the Python environment and installs what pyproject.toml names: venv.sh PYTHON DIRECTORY
set -euo pipefail

python=$1
venv=$2

if ! "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))'; then
    echo "venv.sh: $python is missing or older than 3.11; name another with PYTHON=/path/to/python3" >&2
    exit 1
fi

if [ ! -x "$venv/bin/pip" ]; then
    echo "==> making the Python environment $venv"
    "$python" -m venv "$venv"
fi

echo "==> installing the Python packages that pyproject.toml names"
requirements=$(mktemp)
trap 'rm -f "$requirements"' EXIT
"$venv/bin/python" - >"$requirements" <<'PYTHON'
import pathlib
import tomllib

project = tomllib.loads(pathlib.Path("pyproject.toml").read_text(encoding="utf-8"))
names = [
    *project["build-system"]["requires"],
    *project["project"]["dependencies"],
    *project["project"]["optional-dependencies"]["dev"],
]
print("\n".join(names))
PYTHON
"$venv/bin/pip" install --quiet --requirement "$requirements"
