"""OCI images from files."""

import hashlib
import io
import json
import tarfile
from pathlib import Path
from typing import Any

from canarium_devcluster import images


def layer(tmp_path: Path, name: str = "layer", text: str = "hello") -> images.Layer:
    source = tmp_path / f"{name}-source"
    source.mkdir()
    (source / "file").write_text(text)
    (source / "run").write_text("#!/bin/sh\n")
    (source / "run").chmod(0o750)
    (source / "link").symlink_to("file")
    target = tmp_path / name
    target.mkdir()
    images.write_layer(target, [(source, "/opt/app")])
    return images.read_layer(target)


def image(*layers: images.Layer) -> images.Image:
    return images.Image(name="example.dev/x:1", layers=layers, entrypoint=("/opt/app/run",))


def archive(wanted: images.Image, known: tuple[str, ...] = ()) -> dict[str, bytes]:
    out = io.BytesIO()
    wanted.write_archive(out, known=known)
    out.seek(0)
    with tarfile.open(fileobj=out) as tar:
        members = {m.name: tar.extractfile(m) for m in tar}
        return {name: data.read() for name, data in members.items() if data}


def blob(files: dict[str, bytes], digest: str) -> Any:
    return json.loads(files[f"blobs/{digest.replace(':', '/')}"])


def test_every_blob_has_the_digest_that_is_its_name(tmp_path: Path) -> None:
    """A registry or containerd would refuse anything else."""
    for name, data in archive(image(layer(tmp_path))).items():
        if name.startswith("blobs/"):
            assert name.rpartition("/")[2] == hashlib.sha256(data).hexdigest()


def test_the_index_leads_to_the_layers(tmp_path: Path) -> None:
    """Index, manifest, config and layers refer to each other."""
    made = layer(tmp_path)
    files = archive(image(made))
    entry = json.loads(files["index.json"])["manifests"][0]
    assert entry["annotations"]["io.containerd.image.name"] == "example.dev/x:1"
    assert entry["digest"] == image(made).digest
    manifest = blob(files, entry["digest"])
    assert [part["digest"] for part in manifest["layers"]] == [made.digest]
    config = blob(files, manifest["config"]["digest"])
    assert config["rootfs"]["diff_ids"] == [made.digest]
    assert config["config"]["User"] == "65532:65532"


def test_equal_files_give_equal_digests(tmp_path: Path) -> None:
    """Neither times nor places nor the umask are in a layer."""
    assert layer(tmp_path, "a").digest == layer(tmp_path, "b").digest
    assert layer(tmp_path, "c", text="other").digest != layer(tmp_path, "d").digest


def test_a_layer_keeps_links_and_execute_bits_and_no_owner(tmp_path: Path) -> None:
    """The image's user can read all of it and change none."""
    with tarfile.open(layer(tmp_path).path) as tar:
        found = {m.name: m for m in tar}
    assert found["opt"].isdir()
    assert found["opt/app"].isdir()
    assert found["opt/app/run"].mode == 0o755
    assert found["opt/app/file"].mode == 0o644
    assert found["opt/app/link"].linkname == "file"
    assert {(m.uid, m.gid, m.mtime) for m in found.values()} == {(0, 0, 0)}


def test_layers_that_the_receiver_has_are_left_out(tmp_path: Path) -> None:
    """Loading a changed program does not send its dependencies again."""
    base, top = layer(tmp_path, "base"), layer(tmp_path, "top", text="changed")
    files = archive(image(base, top), known=(base.digest,))
    assert f"blobs/{base.digest.replace(':', '/')}" not in files
    assert f"blobs/{top.digest.replace(':', '/')}" in files
