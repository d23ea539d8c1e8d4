"""Shell scripts for the inside of a container with the Debian of debian.py."""

from tests.support.debian import TINY_SCRIPT, TINY_SUITE

MAKE_BOX = """\
mkdir -p /srv/box/bin /srv/box/tmp
cp /bin/busybox /srv/box/bin
chroot /srv/box /bin/busybox --install -s /bin
tar -C /srv/box -c . | docker import -c 'ENV PATH=/bin' -c 'CMD ["sh"]' - box
"""
"""With a Docker engine that runs inside: the image `box`, of busybox alone."""

DEBOOTSTRAP = (
    "container=lxc debootstrap --no-check-gpg --variant=minbase --exclude=apt "
    f"{TINY_SUITE} /target/root file:///srv/repository {TINY_SCRIPT}"
)
"""From `Debian.repository` on /srv/repository, into /target.  With `container=lxc` it makes do
without device nodes, which no user namespace can make."""

AWAIT_BOOT = """\
until [ -S /run/systemd/private ]; do sleep 0.05; done
systemctl is-system-running --wait
"""
"""Where systemd is the first process: prints `running` or `degraded` once all is up."""
