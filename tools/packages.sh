#!/bin/bash
# Installs those of the named Debian packages that are missing, and says so.
#
# Needs root only when something is missing.  The package lists are fetched once, and only when
# apt cannot find a package in the lists it has.
set -euo pipefail

missing=()
for package in "$@"; do
    status=$(dpkg-query --show --showformat='${db:Status-Status}' "$package" 2>/dev/null || true)
    [ "$status" = installed ] || missing+=("$package")
done
[ ${#missing[@]} -gt 0 ] || exit 0

if [ "$(id -u)" -ne 0 ]; then
    echo "packages.sh: run as root, or install by hand: ${missing[*]}" >&2
    exit 1
fi

echo "==> installing Debian packages: ${missing[*]}"
export DEBIAN_FRONTEND=noninteractive
log=$(mktemp)
trap 'rm -f "$log"' EXIT

install() {
    # Recommended packages would bring in AppArmor, git and much else that no target uses.
    apt-get install --yes --quiet --no-install-recommends "${missing[@]}" >"$log" 2>&1
}

# Old lists name files that the mirror no longer has; so one failure means: fetch and try again.
if ! install; then
    echo "==> fetching the package lists"
    apt-get update --quiet >"$log" 2>&1 || { cat "$log" >&2; exit 1; }
    install || { cat "$log" >&2; exit 1; }
fi
