"""The component for descriptions of a folder: a ConfigMap mounted at the RESOURCES_DIR of the image."""

import shutil
import subprocess

import kubernetes_validate
import pytest
import yaml

from conftest import ROOT, render
from test_manifests import VERSIONS, containers, named, of_kind, pod

VESSELS = 'name = "vessels"\n\n[[column]]\nname = "name"\ntype = "string"\n'


@pytest.fixture
def overlay_with(kustomize, tmp_path):
    """overlay_with(folder): the objects of `dev` with the component and the files of the folder."""
    copy = tmp_path / "kustomize"
    shutil.copytree(kustomize, copy)
    overlay = copy / "overlays" / "dev" / "kustomization.yaml"
    text = yaml.safe_load(overlay.read_text())
    text["components"].append("../../components/resources")
    overlay.write_text(yaml.safe_dump(text))

    def made(folder):
        done = subprocess.run([copy / "resources", folder], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return render(copy / "overlays" / "dev")

    return made


@pytest.fixture
def folder(tmp_path):
    # A path with spaces.
    made = tmp_path / "my tables"
    made.mkdir()
    (made / "vessels.toml").write_text(VESSELS)
    (made / "notes.txt").write_text("none of it")
    return made


def config_map(objects):
    (found,) = of_kind(objects, "ConfigMap")
    return found


@pytest.mark.parametrize("version", VERSIONS)
def test_the_objects_fit_the_api_schema_strictly(overlay_with, folder, version):
    for item in overlay_with(folder):
        kubernetes_validate.validate(item, version, strict=True)


def test_the_files_of_the_folder_are_mounted_where_the_image_reads_them(overlay_with, folder):
    (folder / "harbours.toml").write_text(VESSELS.replace("vessels", "harbours"))
    (folder / "harbours.csv").write_text("name\nAntwerp\n")
    objects = overlay_with(folder)
    assert config_map(objects)["data"] == {
        "vessels.toml": VESSELS,
        "harbours.toml": VESSELS.replace("vessels", "harbours"),
        "harbours.csv": "name\nAntwerp\n",
    }
    deployment = named(objects, "Deployment", "pycrudapi")
    (volume,) = [volume for volume in pod(deployment)["spec"]["volumes"] if volume["name"] == "resources"]
    assert volume["configMap"]["name"] == config_map(objects)["metadata"]["name"]
    (image,) = [line for line in (ROOT / "Dockerfile").read_text().splitlines() if "RESOURCES_DIR=" in line]
    for container in containers(deployment):
        (mount,) = [mount for mount in container["volumeMounts"] if mount["name"] == "resources"]
        assert mount["readOnly"] is True
        assert f"RESOURCES_DIR={mount['mountPath']} " in image


def test_a_changed_description_rolls_the_pods_and_removed_files_are_removed(overlay_with, folder):
    first = config_map(overlay_with(folder))
    (folder / "vessels.toml").rename(folder / "ships.toml")
    second = config_map(overlay_with(folder))
    assert first["metadata"]["name"] != second["metadata"]["name"]
    assert second["data"].keys() == {"ships.toml"}


def test_a_folder_without_descriptions_or_with_names_that_are_no_keys_is_refused(kustomize, folder, tmp_path):
    copy = tmp_path / "kustomize"
    shutil.copytree(kustomize, copy)
    (folder / "my vessels.toml").write_text(VESSELS)
    empty = tmp_path / "empty"
    empty.mkdir()
    for wrong, said in [(folder, "rename it"), (empty, "there is no description in it")]:
        done = subprocess.run([copy / "resources", wrong], capture_output=True, text=True)
        assert done.returncode == 2
        assert said in done.stderr
    assert (copy / "components" / "resources" / "kustomization.yaml").read_text() == (
        ROOT / "kustomize" / "components" / "resources" / "kustomization.yaml"
    ).read_text()
