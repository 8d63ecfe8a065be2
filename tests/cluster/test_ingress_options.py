"""Annotations of Ingresses on a real cluster, through kubectl: what is asked for is done, and what is refused is told."""

from __future__ import annotations

import pytest

from tests.cluster.front_door import NEEDED, Answer, FrontDoor, eventually

pytestmark = NEEDED
# Of `secret`, by openssl passwd -6.
HASH = "$6$salt$egUxKNxDs8kPfh8iPMNcosMhb2eWah6d3R44JDm5Rj/j/XWR5E33QPd0YmHXoDHOIDR6kL5D3JcQcz0O8FHE00"


@pytest.fixture(scope="module")
def door(front_door: FrontDoor) -> FrontDoor:
    front_door.run_apps("web", "new")
    return front_door


class Site:
    """One Ingress of a host of its own."""

    def __init__(self, door: FrontDoor, host: str) -> None:
        self.door, self.kubectl, self.host = door, door.kubectl, host

    def have(self, rule: str, *annotations: str, name: str = "") -> None:
        name = name or self.host.partition(".")[0]
        flags = [f"--annotation={a}" for a in annotations]
        self.kubectl("create", "ingress", name, f"--rule={self.host}{rule}", *flags)
        self.door.wait_address(name)

    def ask(self, path: str = "/", *options: str) -> Answer:
        return self.door.ask(self.host, path, *options)

    def until(self, wanted: str, path: str = "/", *options: str) -> None:
        self.door.until(self.host, path, wanted, *options)


def test_a_path_is_rewritten(door: FrontDoor) -> None:
    site = Site(door, "rewrite.test")
    site.have("/old=web:80", "sampan.io/rewrite=/bar/index.html")
    site.until("200 web ", "/old")
    assert site.ask("/old").body.endswith(" GET rewrite.test /bar/index.html")
    site.kubectl("annotate", "ingress", "rewrite", "--overwrite", "sampan.io/rewrite=/other")
    eventually(lambda: site.ask("/old?a=b").body, lambda body: body.endswith(" /other?a=b"))


def test_users_come_from_a_secret_that_changes(door: FrontDoor) -> None:
    site = Site(door, "users.test")
    site.have("/*=web:80", "sampan.io/basic-auth-secret=people")
    site.until("503")
    refused = f"there is no Secret {door.namespace}/people; nobody is let in"
    assert refused in door.wait_event("users", "InvalidAnnotation")
    site.kubectl("create", "secret", "generic", "people", f"--from-literal=auth=ann:{HASH}")
    site.until("401")
    site.until("200", "/", "-u", "ann:secret")
    assert site.ask("/", "-u", "ann:wrong").status == "401"
    site.kubectl("patch", "secret", "people", "-p", f'{{"stringData": {{"auth": "bob:{HASH}"}}}}')
    site.until("200", "/", "-u", "bob:secret")
    site.until("401", "/", "-u", "ann:secret")


def test_a_client_has_so_many_requests(door: FrontDoor) -> None:
    site = Site(door, "rate.test")
    site.have("/*=web:80", "nginx.ingress.kubernetes.io/limit-rpm=3")
    site.until("200")
    assert "429" in [site.ask().status for _ in range(4)]


def test_a_canary_gets_who_asks_for_it(door: FrontDoor) -> None:
    site = Site(door, "canary.test")
    site.have("/*=web:80")
    site.until("200")
    site.have("/*=new:80", "sampan.io/canary-header=X-New", name="canary-new")
    site.until("200 new ", "/", "-H", "X-New: always")
    assert {site.ask().app for _ in range(5)} == {"web"}


def test_a_snippet_is_refused_and_told(door: FrontDoor) -> None:
    site = Site(door, "snippet.test")
    site.have("/*=web:80", "nginx.ingress.kubernetes.io/configuration-snippet=return 418;")
    site.until("200")
    assert "snippets of configuration are refused" in door.wait_event("snippet", "UnsupportedAnnotation")
