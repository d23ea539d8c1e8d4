"""Which store tells a container's image, and what of a bundle is not believed."""

from __future__ import annotations

import base64
import hashlib
import json
from typing import TYPE_CHECKING, Any

from eci_supervisor.engines import containerd_images, identity
from eci_supervisor.engines.store import Container, shown
from eci_supervisor.policy.images import Image
from tests.support.bbolt import Database

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.bbolt import Tree

ID = "0123456789abcdef"
LAYERS = ("sha256:" + "1" * 64, "sha256:" + "2" * 64)
CONFIG = {"rootfs": {"type": "layers", "diff_ids": LAYERS}}
IMAGE_ID = f"sha256:{hashlib.sha256(json.dumps(CONFIG).encode()).hexdigest()}"
MANIFEST, INDEX = (f"sha256:{letter * 64}" for letter in "bc")


def write(path: Path, document: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(document))


def docker(root: Path, image: str = IMAGE_ID, typed: str = "tool") -> Container:
    """Make a data root of Docker's, and return its container."""
    record = {"ID": ID, "Image": image, "Driver": "overlay2", "Config": {"Image": typed}}
    write(root / f"containers/{ID}/config.v2.json", record)
    (root / "overlay2/x/merged").mkdir(parents=True)
    return mounted(f"/run/tasks/moby/{ID}", root / "overlay2/x")


def mounted(bundle: str, layer: Path) -> Container:
    """Return a container whose root file system a graph driver has mounted."""
    upper = str(layer / "diff")
    return Container(ID, bundle, str(layer / "merged"), layers=(upper,), upper=upper)


def images(root: Path, names: dict[str, str]) -> None:
    """Make its store of images: one image with these names."""
    store = root / "image/overlay2"
    write(store / f"imagedb/content/sha256/{IMAGE_ID[7:]}", CONFIG)
    write(store / "repositories.json", {"Repositories": {"tool": names}})


def containerd(root: Path, namespace: bytes, container: dict[bytes, Any]) -> None:
    """Make a containerd's store: one image, by way of an index, pulled from quay.io/team/tool."""
    blobs = root / containerd_images.CONTENT / "sha256"
    write(blobs / IMAGE_ID[7:], CONFIG)
    write(blobs / MANIFEST[7:], {"config": {"digest": IMAGE_ID}})
    missing = {"digest": "sha256:" + "f" * 64}
    write(blobs / INDEX[7:], {"manifests": [missing, {"digest": MANIFEST}]})
    labels: Tree = {containerd_images.SOURCE + b"quay.io": b"team/tool,team/copy"}
    chain = containerd_images.chain_id(LAYERS).encode()
    tree: Tree = {
        b"containers": {ID.encode(): container},
        b"images": {b"quay.io/team/tool:1": {b"target": {b"digest": INDEX.encode()}}},
        b"content": {b"blob": {INDEX.encode(): {b"labels": labels}}},
        b"snapshots": {b"overlayfs": {b"own": {b"parent": chain}, b"odd": {b"parent": b"odd"}}},
    }
    database = root / containerd_images.DATABASE
    database.parent.mkdir(parents=True)
    database.write_bytes(Database({b"v1": {namespace: tree}}).data())


def of_containerd(root: Path, namespace: str, bundle: str = "io.containerd.runtime.v2.task") -> Any:
    layers = (str(root / "io.containerd.snapshotter.v1.overlayfs/snapshots/1/fs"),)
    return identity.find(Container(ID, f"/run/{bundle}/{namespace}/{ID}", "/x/rootfs", layers))


def test_dockers_record_says_which_image(tmp_path: Path) -> None:
    images(tmp_path, {"tool:1": IMAGE_ID, f"tool@{MANIFEST}": IMAGE_ID, "tool:2": INDEX})
    found = identity.find(docker(tmp_path))
    tool = "docker.io/library/tool"
    image = Image(IMAGE_ID, LAYERS, frozenset({f"{tool}:1"}), frozenset({f"{tool}@{MANIFEST}"}))
    assert (found.engine, found.image, found.shown) == ("docker", image, tool)
    assert list(found.others()) == [image]


def test_a_record_of_another_container_is_none(tmp_path: Path) -> None:
    images(tmp_path, {"tool:1": IMAGE_ID})
    container = docker(tmp_path)
    record = tmp_path / f"containers/{ID}/config.v2.json"
    record.write_text(record.read_text().replace(ID, "other"))
    assert identity.find(container).image is None


def test_an_image_that_the_store_has_not_is_none(tmp_path: Path) -> None:
    images(tmp_path, {})
    for image in ("", "sha256:../../x", "md5:" + "a" * 64, INDEX):
        found = identity.find(docker(tmp_path / image.replace("/", "_"), image))
        assert found.image is None
        assert found.shown == "docker.io/library/tool"


def test_annotations_are_for_the_message_alone(tmp_path: Path) -> None:
    container = Container(ID, "/bundle", str(tmp_path), called="docker:cli")
    found = identity.find(container)
    assert (found.image, found.shown) == (None, "docker.io/library/docker")


def test_containerds_image_is_the_one_of_its_snapshot(tmp_path: Path) -> None:
    record = {b"image": b"quay.io/team/tool:1", b"snapshotter": b"overlayfs"}
    containerd(tmp_path, b"k8s.io", record | {b"snapshotKey": b"own"})
    found = of_containerd(tmp_path, "k8s.io")
    origins = frozenset({f"quay.io/team/tool@{INDEX}", f"quay.io/team/copy@{INDEX}"})
    names = frozenset({"quay.io/team/tool:1"})
    digests = frozenset({INDEX, MANIFEST})
    assert found.image == Image(IMAGE_ID, LAYERS, names, origins, digests)
    assert list(found.others()) == [found.image]
    assert of_containerd(tmp_path, "other").image is None
    assert of_containerd(tmp_path, "k8s.io", "elsewhere").image is None


def test_an_image_that_the_snapshot_is_not_made_of_is_none(tmp_path: Path) -> None:
    record = {b"image": b"quay.io/team/tool:1", b"snapshotter": b"overlayfs"}
    containerd(tmp_path, b"k8s.io", record | {b"snapshotKey": b"odd"})
    assert of_containerd(tmp_path, "k8s.io").image is None


def test_a_docker_with_containerds_store_is_read_by_its_digest(tmp_path: Path) -> None:
    root, layers = tmp_path / "data", tmp_path / "cd/io.containerd.snapshotter.v1.overlayfs/1/fs"
    record = {b"snapshotter": b"overlayfs", b"snapshotKey": b"own"}
    containerd(tmp_path / "cd", b"moby", record)
    container = docker(root, INDEX, "quay.io/team/tool:1")
    found = identity.find(Container(container.id, container.bundle, container.root, (str(layers),)))
    assert (found.engine, found.shown) == ("docker", "quay.io/team/tool")
    assert found.image is not None
    assert found.image.id == IMAGE_ID


def test_a_database_that_cannot_be_read_tells_nothing(tmp_path: Path) -> None:
    database = tmp_path / containerd_images.DATABASE
    database.parent.mkdir(parents=True)
    database.write_bytes(bytes(8192))
    assert of_containerd(tmp_path, "k8s.io").image is None


def test_podmans_image_has_no_origin(tmp_path: Path) -> None:
    hexadecimal = IMAGE_ID[7:]
    stored = {"id": ID, "image": hexadecimal}
    write(tmp_path / "overlay-containers/containers.json", [{"id": "x", "image": "x"}, stored])
    digests = {"manifest": MANIFEST, f"sha256:{hexadecimal}": IMAGE_ID, "signature-1": INDEX}
    names = ["docker.io/library/docker:cli", f"docker.io/library/docker@{MANIFEST}"]
    record = {"id": hexadecimal, "names": names, "big-data-digests": digests}
    write(tmp_path / "overlay-images/images.json", [record])
    key = base64.b64encode(IMAGE_ID.encode()).decode()
    write(tmp_path / f"overlay-images/{hexadecimal}/={key}", CONFIG)
    container = mounted("/b/userdata", tmp_path / "overlay/layer")
    found = identity.find(container)
    tags = frozenset({"docker.io/library/docker:cli"})
    image = Image(IMAGE_ID, LAYERS, tags, frozenset(), frozenset({MANIFEST}))
    assert (found.engine, found.image) == ("podman", image)
    assert found.shown == "docker.io/library/docker"
    # Of a root that is a mere directory, nobody knows who has made what lies above it.
    assert identity.find(Container(ID, container.bundle, container.root)).image is None
    elsewhere = Container(ID, container.bundle, container.root, ("/u",), upper="/g/overlay/y/diff")
    assert identity.find(elsewhere).image is None


def test_a_store_around_a_mere_directory_is_not_believed(tmp_path: Path) -> None:
    """`podman create --rootfs SHARED/r`, and a container that writes to SHARED."""
    images(tmp_path, {"docker:cli": IMAGE_ID, f"docker@{MANIFEST}": IMAGE_ID})
    genuine = docker(tmp_path, typed="docker:cli")
    assert identity.find(genuine).image is not None
    for root in (genuine.root, str(tmp_path / "r")):
        found = identity.find(Container(ID, "/b/userdata", root))
        assert (found.image, found.shown) == (None, "docker.io/library/docker")
        forged = Container(ID, "/b/userdata", root, ("/g/o/y/diff", "/l"), upper="/g/o/y/diff")
        assert identity.find(forged).image is None


def test_a_configuration_has_the_digest_that_it_is_named_by(tmp_path: Path) -> None:
    images(tmp_path, {"tool:1": IMAGE_ID})
    container = docker(tmp_path)
    write(tmp_path / f"image/overlay2/imagedb/content/sha256/{IMAGE_ID[7:]}", CONFIG | {"x": 1})
    assert identity.find(container).image is None


def test_how_an_image_is_called() -> None:
    image = Image(IMAGE_ID, names=frozenset({"docker.io/library/b:1", "docker.io/library/a:1"}))
    assert shown("docker:cli", image) == "docker.io/library/docker"
    assert shown(IMAGE_ID[7:19], image) == "docker.io/library/a"  # its id, in short
    assert shown(IMAGE_ID, Image(IMAGE_ID)) == IMAGE_ID
    assert shown("", Image(IMAGE_ID)) == IMAGE_ID
    assert shown("", None) == "unknown"


def test_chain_ids_are_those_of_the_specification() -> None:
    # image-spec, config.md: ChainID(A) = A, ChainID(A|B) = Digest(ChainID(A) + " " + B).
    assert containerd_images.chain_id(()) == ""
    assert containerd_images.chain_id(LAYERS[:1]) == LAYERS[0]
    digest = "9932074217c35353d2e03a3f5a86549f7c67bfeb0ba53e23d69f4d4c8f7958f5"
    assert containerd_images.chain_id(LAYERS) == f"sha256:{digest}"


def test_a_damaged_store_of_dockers_tells_nothing(tmp_path: Path) -> None:
    for number, repositories in enumerate(([], {"Repositories": ["x"]}, {"Repositories": "x"})):
        images(tmp_path / str(number), {})
        write(tmp_path / str(number) / "image/overlay2/repositories.json", repositories)
        found = identity.find(docker(tmp_path / str(number)))
        assert found.image is not None
        assert (found.image.names, found.image.origins) == (frozenset(), frozenset())
    container = docker(tmp_path / "nul")
    record = tmp_path / f"nul/containers/{ID}/config.v2.json"
    write(record, {"ID": ID, "Image": IMAGE_ID, "Driver": "a\0b", "Config": {"Image": "tool"}})
    assert identity.find(container).image is None


def test_an_index_that_names_the_same_again_and_again_is_read_once(tmp_path: Path) -> None:
    record = {b"image": b"quay.io/team/tool:1", b"snapshotter": b"overlayfs"}
    containerd(tmp_path, b"k8s.io", record | {b"snapshotKey": b"own"})
    blobs = tmp_path / containerd_images.CONTENT / "sha256"
    # Without end in practice: 2000 to the third.
    for here, inner in ((INDEX, "sha256:d"), ("sha256:d", "sha256:e"), ("sha256:e", MANIFEST)):
        write(blobs / here[7:], {"manifests": [{"digest": inner}] * 2000})
    found = of_containerd(tmp_path, "k8s.io")
    assert found.image is not None
    assert found.image.digests == {INDEX, "sha256:d", "sha256:e", MANIFEST}
    assert len(list(found.others())) == 1
