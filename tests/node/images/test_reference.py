from __future__ import annotations

import pytest

from sampan.node.images.reference import parse
from sampan.node.images.types import ImageError

DIGEST = "sha256:" + "a" * 64


@pytest.mark.parametrize(
    ("written", "full"),
    [
        ("nginx", "docker.io/library/nginx:latest"),
        ("nginx:alpine", "docker.io/library/nginx:alpine"),
        ("training/webapp", "docker.io/training/webapp:latest"),
        ("docker.io/nginx", "docker.io/library/nginx:latest"),
        ("index.docker.io/library/nginx", "docker.io/library/nginx:latest"),
        ("localhost/busybox:1", "localhost/busybox:1"),
        ("localhost:5000/a/b", "localhost:5000/a/b:latest"),
        ("registry.k8s.io/pause:3.10", "registry.k8s.io/pause:3.10"),
        (f"nginx@{DIGEST}", f"docker.io/library/nginx@{DIGEST}"),
        (f"nginx:1@{DIGEST}", f"docker.io/library/nginx@{DIGEST}"),
    ],
)
def test_a_name_stands_for_its_full_form(written: str, full: str) -> None:
    assert str(parse(written)) == full


@pytest.mark.parametrize(
    "wrong", ["", "Nginx", "a//b", "nginx:", "nginx:-x", "nginx@sha256:12", "a b", "../x", "x/../y"]
)
def test_a_wrong_name_is_refused_as_upstream_words_it(wrong: str) -> None:
    with pytest.raises(ImageError, match="couldn't parse image name") as e:
        parse(wrong)
    assert e.value.reason == "InvalidImageName"
