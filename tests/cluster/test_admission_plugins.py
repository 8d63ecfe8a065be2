"""Admission plugins by name: checked before anything starts, remembered, and what they do."""

from __future__ import annotations

import json
from pathlib import Path

from tests.cluster.test_faults import pytestmark  # noqa: F401
from tests.cluster.test_lifecycle import Owner, owner  # noqa: F401

IMAGES = "{.spec.containers[0].imagePullPolicy} {.spec.tolerations}"


def test_plugins_are_turned_on_and_off(owner: Owner) -> None:  # noqa: F811
    name = owner.name()
    done = owner.run(
        "up", "--name", name, "--enable-admission-plugins", "AlwaysPullImage,EventRateLimit", check=False
    )
    assert done.returncode == 1
    assert done.stderr == (
        'sampan: --enable-admission-plugins: there is no admission plugin "AlwaysPullImage", did you mean '
        '"AlwaysPullImages"?; --enable-admission-plugins: the admission plugin "EventRateLimit" is not implemented\n'
    )
    state = Path("/var/lib/sampan", name, "cluster.json")
    assert not state.exists()
    owner.run(
        "up", "--name", name, "--enable-admission-plugins=AlwaysPullImages,PodNodeSelector",
        "--disable-admission-plugins=DefaultTolerationSeconds",
    )  # fmt: skip
    run = ("run", "--image=x:1", "--image-pull-policy=Never", "--restart=Never")
    owner.kubectl(name, *run, "a")
    assert owner.kubectl(name, "get", "pod", "a", "-o", f"jsonpath={IMAGES}") == "Always "
    owner.run("stop", "--name", name)
    owner.run("up", "--name", name)
    owner.kubectl(name, *run, "b")
    assert owner.kubectl(name, "get", "pod", "b", "-o", f"jsonpath={IMAGES}") == "Always "
    owner.run("stop", "--name", name)
    owner.run("up", "--name", name, "--enable-admission-plugins=", "--disable-admission-plugins=")
    kept = json.loads(state.read_text())
    assert (kept["enable_admission_plugins"], kept["disable_admission_plugins"]) == ([], [])
    owner.kubectl(name, *run, "c")
    policy, _, tolerations = owner.kubectl(name, "get", "pod", "c", "-o", f"jsonpath={IMAGES}").partition(" ")
    assert policy == "Never"
    assert "node.kubernetes.io/not-ready" in tolerations
