"""exec, attach, logs, cp, port-forward, proxy, run, debug: the commands that reach into a container."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

from tests.kubectl.commands import IMAGE, refused, said
from tests.kubectl.terminal import Terminal
from tests.real_cluster import Kubectl, curl, fetch

DEFAULTED = 'Defaulted container "reader" out of: reader, web, before (init)\n'
PROMPT = "If you don't see a command prompt, try pressing enter.\n"


def test_logs(kubectl: Kubectl, two: str) -> None:
    assert said(kubectl, "logs", two, err=DEFAULTED) == "one\ntwo\n"
    assert said(kubectl, "logs", two, "-c", "before") == "from before\n"
    everything = {"from before", "one", "two", "serving"}
    assert set(said(kubectl, "logs", two, "--all-containers").splitlines()) == everything
    labelled = said(kubectl, "logs", "-l", "app=two", "--all-containers", "--prefix")
    assert set(labelled.splitlines()) == {
        "[pod/two/before] from before", "[pod/two/reader] one", "[pod/two/reader] two", "[pod/two/web] serving",
    }  # fmt: skip
    assert said(kubectl, "logs", two, "-c", "reader", "--tail=1") == "two\n"
    assert said(kubectl, "logs", two, "-c", "reader", "--tail=0") == ""
    assert said(kubectl, "logs", two, "-c", "reader", "--since=1h") == "one\ntwo\n"
    assert said(kubectl, "logs", two, "-c", "reader", "--since-time=2100-01-01T00:00:00Z") == ""
    assert said(kubectl, "logs", two, "-c", "reader", "--limit-bytes=2") == "on"
    timed = said(kubectl, "logs", two, "-c", "reader", "--timestamps").splitlines()
    assert all(re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{9}Z (one|two)", line) for line in timed), (
        timed
    )
    assert "container nosuch is not valid for pod two" in refused(kubectl, "logs", two, "-c", "nosuch")
    assert 'previous terminated container "web" in pod "two" not found' in refused(
        kubectl, "logs", two, "-c", "web", "-p"
    )


def test_logs_of_the_life_before(kubectl: Kubectl) -> None:
    pod = f"""
apiVersion: v1
kind: Pod
metadata: {{name: twice}}
spec:
  volumes: [{{name: d, emptyDir: {{}}}}]
  containers:
  - name: c
    image: "{IMAGE}"
    volumeMounts: [{{name: d, mountPath: /d}}]
    command: [sh, -c, "if [ -e /d/again ]; then echo second; exec sleep 1000; fi; touch /d/again; echo first; exit 1"]
"""
    said(kubectl, "apply", "-f", "-", stdin=pod)
    kubectl.wait_container("twice", "c", "restartCount", "1")
    kubectl.wait_ready("twice")
    assert said(kubectl, "logs", "twice", "--previous") == "first\n"
    with kubectl.start("logs", "-f", "twice") as lines:
        assert next(lines) == "second\n"


def test_logs_follow(kubectl: Kubectl, two: str) -> None:
    with kubectl.start("logs", "-f", two, "-c", "reader") as lines:
        assert [next(lines), next(lines)] == ["one\n", "two\n"]
        said(kubectl, "exec", two, "-c", "reader", "--", "sh", "-c", "echo three > /proc/1/fd/1")
        assert next(lines) == "three\n"
        said(kubectl, "delete", "pod", two)
        assert list(lines) == [], "it ends with the container"


def test_exec(kubectl: Kubectl, two: str) -> None:
    assert said(kubectl, "exec", two, "--", "echo", "hi", err=DEFAULTED) == "hi\n"
    assert said(kubectl, "exec", "-i", two, "-c", "web", "--", "cat", stdin="a\nb") == "a\nb"
    assert said(kubectl, "exec", "pod/two", "-c", "web", "--", "sh", "-c", "echo e >&2", err="e\n") == ""
    ended = kubectl.run("exec", two, "-c", "web", "--", "sh", "-c", "echo o; echo e >&2; exit 3")
    assert (ended.code, ended.out) == (3, "o\n")
    assert ended.err == "e\ncommand terminated with exit code 3\n"
    size = 3_000_000
    assert said(kubectl, "exec", two, "-c", "web", "--", "head", "-c", str(size), "/dev/zero") == "\0" * size
    assert 'exec: "nosuch": executable file not found in $PATH' in refused(
        kubectl, "exec", two, "-c", "web", "--", "nosuch"
    )
    assert "container nosuch is not valid for pod two" in refused(
        kubectl, "exec", two, "-c", "nosuch", "--", "ls"
    )
    assert 'pods "none" not found' in refused(kubectl, "exec", "none", "--", "ls")


def test_exec_on_a_terminal(two: str, on_terminal: Callable[..., Terminal]) -> None:
    with on_terminal("exec", "-it", two, "-c", "web", "--", "sh", columns=101, rows=33) as terminal:
        terminal.expect("/ # ")
        terminal.type("tty; until stty size | grep '33 101'; do :; done\n")
        terminal.expect("/dev/pts/0\r\n33 101\r\n")
        terminal.resize(120, 44)
        terminal.type("until stty size | grep '44 120'; do :; done; echo re''sized\n")
        terminal.expect("44 120\r\nresized\r\n")
        terminal.type("echo be''gins; cat\n")
        terminal.expect("begins\r\n")
        terminal.type("same\n")
        terminal.expect("same\r\nsame\r\n")
        terminal.type("\x03")
        terminal.expect("^C")
        terminal.expect("/ # ")  # What is typed while the shell takes the terminal back may be lost.
        terminal.type("exit 6\n")
        rest, code = terminal.end()
    assert code == 6
    assert rest.endswith("command terminated with exit code 6\r\n")


def test_attach(kubectl: Kubectl, two: str) -> None:
    with kubectl.start("attach", two, "-c", "web") as lines:
        # Until the attachment is there, what is said is not heard: say it until it is.
        loop = "until [ -e /heard ]; do echo there > /proc/1/fd/1; usleep 20000; done"
        with kubectl.start("exec", two, "-c", "web", "--", "sh", "-c", loop):
            assert next(lines) == "there\n"
        said(kubectl, "exec", two, "-c", "web", "--", "touch", "/heard")


def test_attach_on_a_terminal(kubectl: Kubectl, on_terminal: Callable[..., Terminal]) -> None:
    said(kubectl, "run", "shell", f"--image={IMAGE}", "--stdin", "--tty", "--restart=Never", "--command",
         "--attach=false", "--", "sh")  # fmt: skip
    kubectl.wait_ready("shell")
    with on_terminal("attach", "-it", "shell", columns=90, rows=30) as terminal:
        terminal.expect("try pressing enter.\r\n")
        # kubectl first asks for one column and row more, so that what runs draws anew.
        terminal.type("until stty size | grep '30 90'; do :; done; echo sum $((40+2))\n")
        terminal.expect("30 90\r\nsum 42\r\n")
        terminal.type("exit 5\n")
        rest, code = terminal.end()
    assert code == 0, f"how the container ended is told by its status: {rest}"
    kubectl.wait("pod/shell", "jsonpath={.status.containerStatuses[0].state.terminated.exitCode}=5")


def test_run(kubectl: Kubectl, on_terminal: Callable[..., Terminal]) -> None:
    once = ("run", "p", f"--image={IMAGE}", "--rm", "-i", "--restart=Never", "--")
    assert said(kubectl, *once, "cat", stdin="piped\n", err=PROMPT) == 'piped\npod "p" deleted\n'
    failed = kubectl.run(*once, "sh", "-c", "cat; exit 7", stdin="x\n")
    assert (failed.code, failed.out) == (7, 'x\npod "p" deleted\n')
    assert failed.err.startswith(PROMPT)
    assert failed.err.endswith(f"pod {kubectl.namespace}/p terminated (Error)\n")
    assert "falling back" not in failed.err
    with on_terminal(
        "run", "t", f"--image={IMAGE}", "--rm", "-it", "--restart=Never", "--", "sh", columns=99
    ) as terminal:
        terminal.expect("try pressing enter.\r\n")
        terminal.type("until stty size | grep '24 99'; do :; done; exit 3\n")
        terminal.expect("24 99\r\n")
        rest, code = terminal.end()
    assert code == 3
    assert rest == f'pod "t" deleted\r\npod {kubectl.namespace}/t terminated (Error)\r\n'
    both = said(kubectl, "run", "served", f"--image={IMAGE}", "--port=80", "--expose", "--labels=a=b",
                "--env=A=1", "--", "sleep", "1000")  # fmt: skip
    assert both == "service/served created\npod/served created\n"
    assert kubectl.value("service/served", ".spec.selector") == '{"a":"b"}'


def test_cp(kubectl: Kubectl, two: str, tmp_path: Path) -> None:
    directory = tmp_path / "d"
    (directory / "below").mkdir(parents=True)
    (directory / "below" / "file").write_text("some text\n")
    (directory / "large").write_bytes(bytes(range(256)) * 20_000)
    (directory / "script").write_text("#!/bin/sh\n")
    (directory / "script").chmod(0o755)
    assert said(kubectl, "cp", directory, f"{two}:/tmp/there", "-c", "web") == ""
    assert said(kubectl, "exec", two, "-c", "web", "--", "cat", "/tmp/there/below/file") == "some text\n"
    said(kubectl, "exec", two, "-c", "web", "--", "test", "-x", "/tmp/there/script")
    back = tmp_path / "back"
    # The words are the container's own tar's.
    told = "tar: removing leading '/' from member names\n"
    assert said(kubectl, "cp", f"{kubectl.namespace}/{two}:/tmp/there", back, "-c", "web") == told
    assert (back / "below" / "file").read_text() == "some text\n"
    assert (back / "large").read_bytes() == (directory / "large").read_bytes()
    assert 'pods "none" not found' in refused(kubectl, "cp", directory, "none:/tmp/x")


def test_port_forward(kubectl: Kubectl, two: str) -> None:
    with kubectl.start("port-forward", f"pod/{two}", ":8080") as lines:
        port = forwarded(next(lines))
        assert fetch(f"http://127.0.0.1:{port}/") == "hello\n"
        assert curl(f"http://127.0.0.1:{port}/nosuch").code == 22
        assert fetch(f"http://127.0.0.1:{port}/") == "hello\n"
    said(kubectl, "expose", "pod", two, "--port=80", "--target-port=http", "--name=s")
    kubectl.wait_endpoints("s", 1)
    with kubectl.start("port-forward", "service/s", ":80") as lines:
        assert fetch(f"http://127.0.0.1:{forwarded(next(lines))}/") == "hello\n"
    with kubectl.start("port-forward", two, ":9999") as lines:
        assert curl(f"http://127.0.0.1:{forwarded(next(lines))}/").code == 52, "an empty reply"


def forwarded(line: str) -> str:
    found = re.fullmatch(r"Forwarding from 127\.0\.0\.1:(\d+) -> \d+\n", line)
    assert found, line
    return found[1]


def test_proxy(kubectl: Kubectl, two: str) -> None:
    said(kubectl, "expose", "pod", two, "--port=80", "--target-port=http", "--name=s")
    kubectl.wait_endpoints("s", 1)
    with kubectl.start("proxy", "--port=0") as lines:
        found = re.fullmatch(r"Starting to serve on (127\.0\.0\.1:\d+)\n", next(lines))
        assert found
        namespaced = f"http://{found[1]}/api/v1/namespaces/{kubectl.namespace}"
        assert fetch(f"{namespaced}/services/s:80/proxy/") == "hello\n"
        assert fetch(f"{namespaced}/pods/{two}:8080/proxy/index.html") == "hello\n"
        assert (
            fetch(f"http://{found[1]}/api/v1/proxy/namespaces/{kubectl.namespace}/services/s:80/")
            == "hello\n"
        )
        assert '"PodList"' in fetch(f"{namespaced}/pods")


def test_debug(kubectl: Kubectl, two: str, on_terminal: Callable[..., Terminal]) -> None:
    with on_terminal(
        "debug", "-it", two, f"--image={IMAGE}", "--profile=general", "-c", "look", "--", "sh"
    ) as terminal:
        terminal.expect("try pressing enter.\r\n")
        terminal.type("wget -q -O - http://localhost:8080/; exit\n")
        terminal.expect("hello\r\n")
        assert terminal.end()[1] == 0
    debug = ("debug", two, f"--image={IMAGE}", "--profile=general")
    assert (
        "joining the processes of one container is not implemented"
        in kubectl.run(*debug, "-c", "aim", "--target=web", "--", "true").err
    )
    # A copy with its image changed and the container to be looked at left alone but for its command.
    said(kubectl, *debug[:2], "--profile=general", "--copy-to=other", "--container=web", "--set-image=*=busybox:latest",
         "--", "sleep", "1000")  # fmt: skip
    kubectl.wait_ready("other")
    assert (
        kubectl.value("pod/other", ".spec.containers[1]['image','command']")
        == 'busybox:latest ["sleep","1000"]'
    )
    said(kubectl, *debug, "--copy-to=copy", "--share-processes", "-c", "beside", "--", "sleep", "1000")
    kubectl.wait_ready("copy")
    seen = said(kubectl, "exec", "copy", "-c", "beside", "--", "ps")
    assert "httpd -f -p 8080" in seen


def test_debug_of_a_node(kubectl: Kubectl, on_terminal: Callable[..., Terminal]) -> None:
    with on_terminal(
        "debug", "-it", "node/node-1", f"--image={IMAGE}", "--profile=sysadmin", "--", "sh"
    ) as terminal:
        terminal.expect("try pressing enter.\r\n")
        terminal.type("ls -d /host/etc; exit\n")
        terminal.expect("/host/etc\r\n")
        assert terminal.end()[1] == 0
