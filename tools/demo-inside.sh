#!/bin/sh
# The demonstration's part inside the container (busybox sh).
#
# Each step says what it tries and what must come of it; the exit code is the number of steps
# that came out otherwise.
#
# shellcheck disable=SC2317  # write and mapped are called through must

wrong=0

say() {
    printf '\n# %s\n' "$*"
}

# must works|fails COMMAND…
must() {
    expected=$1
    shift
    printf '$ %s\n' "$*"
    if "$@"; then outcome=works; else outcome=fails; fi
    sleep 0.1 # the trace line comes by another way; let it appear beside its call
    [ "$outcome" = "$expected" ] && return
    printf '!! that %s, and it must not\n' "$outcome"
    wrong=$((wrong + 1))
}

write() {
    echo "written from inside" 2>/dev/null >"$1" && return
    echo "write: cannot write $1"
    return 1
}

mapped() {
    read -r inside host count </proc/self/uid_map
    printf 'uid %s in here is uid %s of the host, and so on for %s ids\n' "$inside" "$host" "$count"
    [ "$host" -ge 100000 ]
}

say "Root in here is an ordinary user of the host."
must works mapped

say "A tmpfs is the container's own business: it may be mounted, remounted and removed."
must works mount -t tmpfs own /mnt
must works mount -o remount,ro /mnt
must fails write /mnt/file
must works mount -o remount,rw /mnt
must works write /mnt/file
must works umount /mnt

say "A bind of a directory of the container, too."
mkdir -p /srv/here /srv/there
must works mount --bind /srv/here /srv/there
must works umount /srv/there

say "A volume that was given read-only stays read-only, however one asks."
must works cat /volume/letter
must fails mount -o remount,bind,rw /volume
must fails mount -o remount,rw /volume
must works mount --bind /volume /mnt
must fails mount -o remount,bind,rw /mnt
must fails write /mnt/letter
must works umount /mnt
must fails write /volume/letter

say "A mask over a file or directory of the kernel cannot be lifted."
# The first masked path that this kernel has.
masked=
while read -r _ _ _ _ where _; do
    case $where in
        /proc/?*/* | /proc/sys | /proc/bus | /proc/fs | /proc/irq) ;;
        /proc/?* | /sys/firmware) masked=$where && break ;;
        *) ;;
    esac
done </proc/self/mountinfo
if [ -n "$masked" ]; then
    must fails umount "$masked"
    must fails umount -l "$masked"
    mkdir -p /srv/aside
    must fails mount --move "$masked" /srv/aside
else
    printf '!! no mask found\n'
    wrong=$((wrong + 1))
fi

if [ "$wrong" -eq 0 ]; then
    say "Every step came out as it must."
else
    say "$wrong steps came out wrong."
fi
exit "$wrong"
