"""Package management: a whole system installed inside, and single packages."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.support.inside import DEBOOTSTRAP
from tests.support.workload import PRIVILEGED, SYS_ADMIN

if TYPE_CHECKING:
    from tests.support.debian import Debian
    from tests.support.workload import Workloads

pytestmark = [
    pytest.mark.root,
    pytest.mark.engine,
    pytest.mark.debian,
    # Not what comes before: the first session on a machine makes the image.
    pytest.mark.timeout(120, func_only=True),
]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("runtime", "flags"),
    [
        ("eci", [*PRIVILEGED, "--volume=/target"]),
        ("eci-crun", [*SYS_ADMIN, "--tmpfs=/target:exec,suid,dev,mode=755"]),
    ],
    ids=["privileged-volume", "sys_admin-tmpfs"],
)
def test_debootstrap(
    workloads: Workloads, kept_debian: Debian, runtime: str, flags: list[str]
) -> None:
    repository = f"--volume={kept_debian.repository}:/srv/repository:ro"
    with workloads.start(runtime, *flags, repository) as box:
        box.out(
            f"{DEBOOTSTRAP} > /log 2>&1 || "
            "{ tail -n 20 /log /target/root/debootstrap/debootstrap.log >&2; exit 1; }",
            timeout=110,
        )
        assert "Base system installed successfully" in box.out("cat /log")
        assert box.out("chroot /target/root dpkg --audit") == ""
        version = "chroot /target/root dpkg-query -W -f '${Version} ${db:Status-Status}' dpkg"
        assert box.out(version).split()[1] == "installed"
        # It unmounted what it had mounted.
        assert box.mounts("/target") == ["/target"]


MAKE_PACKAGE = """\
cd $(mktemp -d)
mkdir -p DEBIAN usr/bin etc var/lib/sample
printf 'Package: sample\\nVersion: %s\\nArchitecture: all\\nMaintainer: x <x@example.org>\\n' \
    "$1" > DEBIAN/control
echo 'Description: sample' >> DEBIAN/control
echo /etc/sample.conf > DEBIAN/conffiles
echo version=$1 > etc/sample.conf
printf '#!/bin/sh\\necho %s\\n' "$1" > usr/bin/sample
chmod 4755 usr/bin/sample
cat > DEBIAN/postinst <<'END'
#!/bin/sh
set -e
chown www-data:www-data /var/lib/sample
mount -t tmpfs none /var/lib/sample
echo x > /var/lib/sample/x
umount /var/lib/sample
END
chmod 755 DEBIAN/postinst
dpkg-deb --root-owner-group --build . /srv/repository/sample_$1_all.deb > /dev/null
"""

MAKE_INDEX = """\
cd /srv/repository
for package in *.deb
do
    dpkg-deb --field $package
    echo "Filename: ./$package"
    echo "Size: $(stat -c %s $package)"
    echo "SHA256: $(sha256sum $package | cut -d' ' -f1)"
    echo
done > Packages
rm -f /etc/apt/sources.list.d/*
echo 'deb [trusted=yes] file:/srv/repository ./' > /etc/apt/sources.list
apt-get update > /dev/null 2>&1
"""

LOOK = "sample; cat /etc/sample.conf; stat -c '%u %a' /usr/bin/sample; stat -c %U /var/lib/sample"


def test_install_upgrade_and_remove(workloads: Workloads, runtime: str) -> None:
    with workloads.start(runtime, *SYS_ADMIN) as box:
        box.out("mkdir /srv/repository")
        box.out(f"set -- 1\n{MAKE_PACKAGE}")
        box.out(MAKE_INDEX)
        box.out("apt-get install -y -qq sample")
        assert box.out(LOOK).split() == ["1", "version=1", "0", "4755", "www-data"]
        box.out(f"set -- 2\n{MAKE_PACKAGE}")
        box.out(MAKE_INDEX)
        box.out("apt-get upgrade -y -qq")
        assert box.out(LOOK).split() == ["2", "version=2", "0", "4755", "www-data"]
        box.out("apt-get purge -y -qq sample")
        gone = "ls /usr/bin/sample /etc/sample.conf /var/lib/sample"
        assert box.run(gone, check=False).stdout == ""
        assert box.out("dpkg --audit") == ""
