"""The image, built once, and Compose projects that are always removed at the end."""

import subprocess

import pytest

from containers import IMAGE, VERSION, Project, docker
from support import REPOSITORY


@pytest.fixture(scope="session")
def image():
    """Builds the image of this checkout; returns its name."""
    done = subprocess.run(["make", "--silent", "test-image"], cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-5000:] + done.stderr[-5000:]
    return f"{IMAGE}:{VERSION}"


@pytest.fixture(scope="module")
def project(request, image, tmp_path_factory):
    """project(name, *files): a new Compose project, which is removed completely at the end."""
    made = []

    def make(name, *files):
        one = Project(name, tmp_path_factory.mktemp(name), *files)
        made.append(one)
        one("down", "--volumes", "--remove-orphans")
        return one

    yield make
    for one in made:
        if request.session.testsfailed:
            print(one("logs", "--no-color", "--tail=50"))
        one("down", "--volumes", "--remove-orphans")


@pytest.fixture
def network():
    """A network of the engine for containers outside Compose, which are removed with it."""
    name = "pycrudapi-test-pods"
    forget(name)
    docker("network", "create", name)
    yield name
    forget(name)


def forget(network):
    for container in docker("ps", "--all", "--quiet", "--filter", f"network={network}").split():
        docker("rm", "--force", "--volumes", container)
    docker("network", "rm", network, check=False)
