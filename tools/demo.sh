#!/bin/bash
# A protected container on the embedded default, no engine needed: demo.sh PATH-OF-ECI
#
# Exits non-zero when a step came out otherwise than it must, or the host's file was changed.
set -euo pipefail

eci=$1
here=$(cd "$(dirname "$0")" && pwd)
volume=$(mktemp -d)
trap 'rm -rf "$volume"' EXIT
chmod 755 "$volume"
echo "written by the host" >"$volume/letter"

cat <<'TEXT'
==> a container that may mount (SYS_ADMIN), with a read-only volume:

      eci run --trace --cap-add SYS_ADMIN -v DIR:/volume:ro -- sh …

    "$" is what the container runs.  Lines with a system call and its microseconds are the
    supervisor's trace: it carried the call out, or refused it by the rule that is named.
TEXT

code=0
"$eci" run --trace --runtime "${ECI_RUNTIME:-runc}" --cap-add SYS_ADMIN -v "$volume:/volume:ro" -- \
    sh -c "$(cat "$here/demo-inside.sh")" < <(:) 2>&1 || code=$?

if [ "$(cat "$volume/letter")" != "written by the host" ]; then
    echo "!! the container changed the host's read-only file" >&2
    code=1
fi
if [ "$code" -ne 0 ]; then
    echo "==> the demonstration failed (exit code $code)" >&2
    exit "$code"
fi
echo "==> done: the host's file is as it was"
