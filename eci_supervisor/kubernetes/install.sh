#!/bin/sh
# Installs eci-supervisor on a node of a cluster, or takes it out of use: install.sh install|remove
#
# Run by the DaemonSet (daemonset.yaml) in a container of an image that holds the project at
# ECI_PREFIX, with the node's root directory at ECI_HOST.  It copies ECI_PREFIX to the very same
# path of the node, since paths are compiled in, and has `eci enable` switch containerd over.
# Whatever happens, containerd's configuration is the old or the new one, and running it again
# changes nothing.
#
#   ECI_PREFIX   a directory for this version alone: containers that run go on using theirs
#   ECI_HOST     where the node's root directory is
#   ECI_PODS     by-class or all: see `eci enable --help`
#   ECI_RESTART  the command that starts the node's containerd anew; pods go on running
set -eu

prefix=${ECI_PREFIX:?names the directory that has the project}
host=${ECI_HOST:-/host}
pods=${ECI_PODS:-by-class}
restart=${ECI_RESTART:-nsenter --target 1 --mount --uts --ipc --net --pid -- systemctl restart containerd}
config=/etc/containerd/config.toml

fail() {
    echo "install.sh: $*" >&2
    exit 1
}

# What decides whether containerd has to be started anew.
fingerprint() {
    if [ -e "$host$config" ]; then cksum <"$host$config"; else echo none; fi
}

# What a directory holds, but for what Python writes beside its files.
digest() {
    (cd "$1" && find . -type f ! -name '*.pyc' -exec cksum {} + | LC_ALL=C sort -k 3 | cksum)
}

# Fails unless the node has what the copied programs do not bring along.
check_node() {
    for directory in bin sbin usr/bin usr/sbin usr/local/bin usr/local/sbin; do
        [ -x "$host/$directory/runc" ] && runtime=yes
        [ -x "$host/$directory/crun" ] && runtime=yes
    done
    [ "${runtime:-}" = yes ] || fail "the node has neither runc nor crun"
    python=$(readlink -f "$prefix/bin/python3") || fail "$prefix/bin/python3 is missing in the image"
    case $python in
        "$prefix"/*) ;;
        *) [ -x "$host$python" ] || fail "the node has no $python: make the image from its distribution" ;;
    esac
    [ -n "$(find "$host/lib" "$host/usr/lib" -name 'libfuse3.so.3' -print -quit 2>/dev/null)" ] ||
        fail "the node has no libfuse3.so.3: install fuse3"
}

# Copies the project, whole or not at all.
copy() {
    if [ -d "$host$prefix" ]; then
        [ "$(digest "$prefix")" = "$(digest "$host$prefix")" ] ||
            fail "the node has another build in $prefix: give each version a directory of its own"
        return
    fi
    new="$host$prefix.new"
    rm -rf "$new"
    mkdir -p "$(dirname "$new")"
    cp -a "$prefix" "$new"
    sync -f "$new"
    mv -T "$new" "$host$prefix"
}

case ${1:-} in
    install)
        [ -d "$host/etc" ] || fail "$host is no root directory of a node"
        check_node
        copy
        "$prefix/bin/eci" enable --root "$host" --engine containerd --pods "$pods"
        ;;
    remove)
        # The files stay: pods that were started with them are still there.
        "$prefix/bin/eci" disable --root "$host" --engine containerd
        ;;
    *)
        fail "usage: install.sh install|remove"
        ;;
esac

# With what configuration it was last started by us: if that is another one, or we were killed
# before, it is started anew.
stamp="$host/var/lib/eci/containerd-started-with"
now=$(fingerprint)
if [ ! -e "$stamp" ] || [ "$(cat "$stamp")" != "$now" ]; then
    $restart
    mkdir -p "${stamp%/*}"
    echo "$now" >"$stamp.new"
    mv "$stamp.new" "$stamp"
fi
echo "install.sh: $1: done"
