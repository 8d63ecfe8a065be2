"""Start a cluster: the steps, in order. Reading the list is reading what a cluster consists of."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from dataclasses import dataclass, field, replace

from sampan.cluster import (
    asking,
    ingress_nodes,
    kubeconfig,
    link,
    pki,
    ports,
    preflight,
    ranges,
    supervision,
    teardown,
)
from sampan.cluster import config as configuration
from sampan.cluster.config import ClusterConfig
from sampan.cluster.errors import ClusterError
from sampan.cluster.wishes import Wishes, resolve

log = logging.getLogger(__name__)
READY_TIMEOUT = 120.0
_MOST_FAILURES = 3


@dataclass(slots=True)
class Bringup:
    """One `sampan up`. `say` is told what is being done, a line a step."""

    wishes: Wishes
    say: Callable[[str], None] = lambda text: None
    config: ClusterConfig = field(init=False)
    new: bool = field(init=False, default=False)
    running: bool = field(init=False, default=False)

    def run(self) -> ClusterConfig:
        """All steps; returns when the cluster is ready. Raises ClusterError, with nothing new left behind."""
        self.check_host()
        with configuration.locked(self.say):
            self.choose_cluster()
            try:
                self.make_certificates()
                self.start_supervisor()
                self.wait_until_ready()
            except BaseException as e:
                self.undo()
                if isinstance(e, OSError):
                    raise ClusterError(_words(e)) from e
                raise
            self.write_kubeconfig()
        self.look_for_chosen_nodes()
        return self.config

    def check_host(self) -> None:
        preflight.check()
        if self.wishes.ingress and not preflight.program("haproxy"):
            self.say("warning: haproxy is missing, so Ingresses have no effect: apt-get install haproxy")

    def choose_cluster(self) -> None:
        """Name, number, ports and ranges: chosen once, then kept."""
        self.config, self.new = resolve(self.wishes)
        try:
            link.ask(self.config.run_directory, "status")
            self.running = True
        except link.NotRunning:
            self.running = False
        before = configuration.load(self.config.name)
        if self.running and before is not None and before.apiservers != self.config.apiservers:
            raise ClusterError(
                f"cluster {self.config.name} runs with {before.apiservers} API servers: stop it to have another number"
            )
        if (
            self.running
            and before is not None
            and ingress_nodes.terms(before) != ingress_nodes.terms(self.config)
        ):
            self.say(
                "warning: which nodes have front doors, and how, changes when the cluster is stopped and started"
            )
        if not self.running:
            problems = []
            if not _control_plane_lives(self.config):
                problems = [*ports.busy(self.config), *ranges.taken_since(self.config)]
            if problems:
                raise ClusterError("; ".join(problems))
        try:
            self.config.save()
        except OSError as e:
            raise ClusterError(_words(e)) from e

    def make_certificates(self) -> None:
        made = pki.ensure(self.config)
        if made and not self.new:
            self.say(f"renewed certificates: {', '.join(made)}")
        kubeconfig.write(self.config)

    def start_supervisor(self) -> None:
        """Which starts the control plane, makes the nodes' namespaces and network, and starts the nodes."""
        if not self.running:
            self.say(f"{'starting' if self.new else 'resuming'} cluster {self.config.name}")
            supervision.start(self.config)

    def wait_until_ready(self) -> None:
        """Raises ClusterError with a part's own words if it keeps failing."""
        directory = self.config.run_directory
        try:
            # The socket's file alone says nothing: it outlives a supervisor that was killed.
            supervision.await_change(directory, lambda: link.answers(directory), 30.0)
            for status in link.follow(self.config.run_directory, READY_TIMEOUT):
                for part in status["parts"]:
                    if not part["ready"] and part["restarts"] >= _MOST_FAILURES and part["problem"]:
                        raise ClusterError(f"{part['name']} does not start: {part['problem']}")
        except TimeoutError:
            raise ClusterError(
                f"cluster {self.config.name} is not ready after {READY_TIMEOUT:.0f} s; see {self.config.directory}/logs"
            ) from None
        except link.NotRunning as e:
            raise ClusterError(
                f"the supervisor does not run ({e}); see {self.config.directory}/logs"
            ) from None

    def write_kubeconfig(self) -> None:
        try:
            path = kubeconfig.user_file()
            if str(path) not in self.config.kubeconfigs:
                # Kept first: whatever happens then, `delete` knows where to look.
                self.config = replace(self.config, kubeconfigs=(*self.config.kubeconfigs, str(path)))
                self.config.save()
            kubeconfig.merge(self.config, path)
            self.say(f"context {self.config.context} is in {path}")
        except (ClusterError, OSError) as e:
            self.say(f"warning: {e}; use KUBECONFIG={self.config.directory}/kubeconfig")

    def look_for_chosen_nodes(self) -> None:
        """Machines that joined may be front doors, too: what was chosen is compared with what is there."""
        if self.wishes.ingress_nodes is None or not ingress_nodes.on_other_machines(self.config):
            return
        for name in asking.ask(self.config, lambda client: ingress_nodes.not_there(client, self.config)):
            self.say(
                f"warning: --ingress-nodes: there is no node {name!r}; one that joins by this name may be a front door"
            )

    def undo(self) -> None:
        """A cluster that never was ready leaves nothing; one that had been keeps its data and is stopped."""
        if self.new:
            teardown.delete(self.config, grace=0)
        elif not self.running:
            teardown.stop(self.config)


def _control_plane_lives(config: ClusterConfig) -> bool:
    from sampan.cluster import processes

    return bool(processes.members(f"sampan/{config.name}"))


def _words(e: OSError) -> str:
    reason = os.strerror(e.errno) if e.errno else str(e)
    where = f": {e.filename}" if e.filename else ""
    return f"{e.args[-1] if e.args else reason}{where}" if not e.filename else f"{reason}{where}"
