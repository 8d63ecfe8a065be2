"""The Deployment controller: one step towards the wanted template and size each time something changes."""

from __future__ import annotations

from collections.abc import Sequence

from sampan.api import selectors
from sampan.api.errors import Object, StatusError
from sampan.api.objects import condition, controller_of, deep_copy
from sampan.api.resources import DEPLOYMENTS, PODS, REPLICASETS
from sampan.controllers import pods as pod_facts
from sampan.controllers.controller import Context, Controller, OwnWrites, deleting, split_key
from sampan.controllers.deployment import facts, revisions, scaling, status
from sampan.controllers.informers import OWNER, selecting
from sampan.controllers.ownership import claim, owner_of_kind
from sampan.controllers.per_namespace import namespace_terminating


class _Rollout:
    """One sync's working copy: the Deployment, whose status and annotations are written once at the end, and its
    ReplicaSets as they are after our own changes."""

    def __init__(self, deployment: Object, sets: Sequence[Object]) -> None:
        self.deployment = deep_copy(deployment)
        self.original = deployment
        self.sets = {s["metadata"]["name"]: s for s in sets}
        self.new = revisions.find_new(deployment, sets)

    @property
    def all(self) -> list[Object]:
        return list(self.sets.values())

    @property
    def old(self) -> list[Object]:
        name = self.new["metadata"]["name"] if self.new is not None else None
        return [s for n, s in self.sets.items() if n != name]

    def replace(self, replica_set: Object) -> None:
        name = replica_set["metadata"]["name"]
        self.sets[name] = replica_set
        if self.new is not None and self.new["metadata"]["name"] == name:
            self.new = replica_set

    def progress(self, value: str, reason: str, message: str) -> None:
        """Note in the condition Progressing what was just done."""
        status.set_condition(self.deployment.setdefault("status", {}), "Progressing", value, reason, message)


class DeploymentController(Controller):
    name = "deployment"
    workers = 5

    def __init__(self, context: Context) -> None:
        super().__init__()
        self._client = context.client
        self._events = context.recorder("deployment-controller")
        self._deployments = context.informers.of(DEPLOYMENTS)
        self._sets = context.informers.of(REPLICASETS)
        self._pods = context.informers.of(PODS)
        self._writes = OwnWrites(self._sets)
        self._deployments.add_handler(self.enqueue_either)
        self._sets.add_handler(self._set_changed)
        self._pods.add_handler(self._pod_changed)

    # ---- what wakes us

    def _set_changed(self, old: Object | None, new: Object | None) -> None:
        replica_set = new if new is not None else old
        assert replica_set is not None
        namespace = replica_set["metadata"]["namespace"]
        for owner in {
            o["name"] for o in (owner_of_kind(old, DEPLOYMENTS), owner_of_kind(new, DEPLOYMENTS)) if o
        }:
            self.queue.add(f"{namespace}/{owner}")
        if new is not None and controller_of(new) is None and not deleting(new):
            for deployment in selecting(self._deployments, new):
                self.enqueue(deployment)

    def _pod_changed(self, old: Object | None, new: Object | None) -> None:
        """Recreate waits for the last old pod to be over."""
        if old is None or (new is not None and not pod_facts.finished(new)):
            return
        reference = owner_of_kind(old, REPLICASETS)
        if reference is None:
            return
        namespace = old["metadata"]["namespace"]
        owner = owner_of_kind(self._sets.get(namespace, reference["name"]), DEPLOYMENTS)
        deployment = self._deployments.get(namespace, owner["name"]) if owner else None
        if deployment is not None and not facts.rolling(deployment):
            self.enqueue(deployment)

    # ---- one step

    async def sync(self, key: str) -> None:
        deployment = self._deployments.get(*split_key(key))
        if deployment is None:
            self._writes.forget(key)
            return
        if self._writes.unseen(key):
            return  # the ReplicaSet's change that is under way brings us back
        if selectors.from_object(deployment["spec"].get("selector")).empty:
            await self._refuse_all(deployment)
            return
        sets = await claim(self._client, deployment, DEPLOYMENTS, self._sets)
        rollout = _Rollout(deployment, sets)
        try:
            await self._step(key, rollout)
        finally:
            await self._write(rollout)
        if rollout.deployment.get("status") == (deployment.get("status") or {}):
            again = status.until_deadline(rollout.deployment, rollout.deployment.get("status") or {})
            if again is not None:
                self.queue.add_after(key, again)

    async def _step(self, key: str, rollout: _Rollout) -> None:
        deployment = rollout.deployment
        if deleting(deployment):
            self._count(rollout)
            return
        self._note_pause(rollout)
        scaled = any(
            (desired := facts.number_annotation(s, facts.DESIRED_REPLICAS)) is not None
            and desired != facts.replicas(deployment)
            for s in facts.active(rollout.all)
        )
        if facts.paused(deployment) or scaled:
            await self._take_up(key, rollout)
            for replica_set, size in scaling.rescaled(deployment, rollout.new, rollout.old):
                await self._scale(key, rollout, replica_set, size)
            if facts.paused(deployment):
                await self._clean_up(rollout)
            self._count(rollout)
        elif facts.rolling(deployment):
            await self._roll(key, rollout)
        else:
            await self._recreate(key, rollout)

    async def _roll(self, key: str, rollout: _Rollout) -> None:
        await self._take_up(key, rollout, create=True)
        new = rollout.new
        if new is None:
            return
        size = scaling.new_size(rollout.deployment, rollout.all, new)
        if not await self._scale(key, rollout, new, size):
            sizes = scaling.old_sizes(rollout.deployment, rollout.all, rollout.old, new)
            for replica_set, smaller in sizes:
                await self._scale(key, rollout, replica_set, smaller)
            if not sizes and status.complete(rollout.deployment, rollout.deployment.get("status") or {}):
                await self._clean_up(rollout)
        self._finish(rollout)

    async def _recreate(self, key: str, rollout: _Rollout) -> None:
        await self._take_up(key, rollout)
        shrinking = facts.active(rollout.old)
        for replica_set in shrinking:
            await self._scale(key, rollout, replica_set, 0)
        if not shrinking and not self._old_pods_run(rollout):
            await self._take_up(key, rollout, create=True)
            if rollout.new is not None:
                await self._scale(key, rollout, rollout.new, facts.replicas(rollout.deployment))
            if status.complete(rollout.deployment, rollout.deployment.get("status") or {}):
                await self._clean_up(rollout)
        self._finish(rollout)

    def _old_pods_run(self, rollout: _Rollout) -> bool:
        if facts.total_counted(rollout.old, "replicas"):
            return True
        return any(
            not pod_facts.finished(pod)
            for replica_set in rollout.old
            for pod in self._pods.by_index(OWNER, replica_set["metadata"]["uid"])
        )

    # ---- the ReplicaSet of the present template

    async def _take_up(self, key: str, rollout: _Rollout, *, create: bool = False) -> None:
        """See that the newest ReplicaSet is there (if `create`) and is numbered last."""
        deployment = rollout.deployment
        revision = revisions.next_revision(rollout.old)
        if rollout.new is None:
            if create:
                await self._make(key, rollout, revision)
            return
        changed = revisions.annotated(deployment, rollout.new, revision)
        if changed is not rollout.new:
            written = await self._client.update(REPLICASETS, changed)
            self._writes.note(key, written)
            rollout.replace(written)
        self._set_revision(deployment, facts.annotation(changed, facts.REVISION))
        if facts.deadline(deployment) is not None and condition(deployment, "Progressing") is None:
            name = changed["metadata"]["name"]
            rollout.progress("True", "FoundNewReplicaSet", f'Found new replica set "{name}"')

    async def _make(self, key: str, rollout: _Rollout, revision: int) -> None:
        deployment = rollout.deployment
        made = revisions.make(deployment, rollout.old, revision)
        name = made["metadata"]["name"]
        size = scaling.new_size(deployment, [*rollout.all, made], made)
        _set_size(deployment, made, size)
        try:
            created = await self._client.create(REPLICASETS, made)
        except StatusError as e:
            if e.reason == "AlreadyExists":
                created = await self._exists(rollout, made)
            elif namespace_terminating(e):
                return
            else:
                message = f'Failed to create new replica set "{name}": {e.message}'
                if facts.deadline(deployment) is not None:
                    rollout.progress("False", "ReplicaSetCreateError", message)
                self._events.event(deployment, "Warning", "ReplicaSetCreateError", message)
                raise
        else:
            if size > 0:
                self._events.event(
                    deployment,
                    "Normal",
                    "ScalingReplicaSet",
                    f"Scaled up replica set {name} from 0 to {size}",
                )
            if facts.deadline(deployment) is not None:
                rollout.progress("True", "NewReplicaSetCreated", f'Created new replica set "{name}"')
        self._writes.note(key, created)
        rollout.new = created
        rollout.replace(created)
        self._set_revision(deployment, str(revision))

    async def _exists(self, rollout: _Rollout, made: Object) -> Object:
        """The ReplicaSet of that name, if it is ours; else another name must be found the next time."""
        meta, deployment = made["metadata"], rollout.deployment
        present = await self._client.get(REPLICASETS, meta["namespace"], meta["name"])
        owner = controller_of(present)
        if (
            owner is not None
            and owner["uid"] == deployment["metadata"]["uid"]
            and facts.same_template(present["spec"]["template"], deployment["spec"]["template"])
        ):
            return present
        state = deployment.setdefault("status", {})
        state["collisionCount"] = int(state.get("collisionCount") or 0) + 1
        raise StatusError(409, "AlreadyExists", f'replicasets.apps "{meta["name"]}" already exists')

    @staticmethod
    def _set_revision(deployment: Object, revision: str) -> None:
        if revision and facts.annotation(deployment, facts.REVISION) != revision:
            meta = deployment["metadata"]
            meta["annotations"] = {**(meta.get("annotations") or {}), facts.REVISION: revision}

    # ---- sizes

    async def _scale(self, key: str, rollout: _Rollout, replica_set: Object, size: int) -> bool:
        """Give a ReplicaSet its size, and the annotations that tell what it was computed from. Whether the size changed."""
        deployment, before = rollout.deployment, facts.replicas(replica_set)
        changed = deep_copy(replica_set)
        _set_size(deployment, changed, size)
        if (
            changed["metadata"].get("annotations") == replica_set["metadata"].get("annotations")
            and size == before
        ):
            return False
        written = await self._client.update(REPLICASETS, changed)
        self._writes.note(key, written)
        rollout.replace(written)
        if size != before:
            way, name = ("up" if size > before else "down"), replica_set["metadata"]["name"]
            self._events.event(
                deployment,
                "Normal",
                "ScalingReplicaSet",
                f"Scaled {way} replica set {name} from {before} to {size}",
            )
        return size != before

    async def _clean_up(self, rollout: _Rollout) -> None:
        """Delete the oldest ReplicaSets beyond what the history may hold."""
        limit = rollout.deployment["spec"].get("revisionHistoryLimit")
        if limit is None or limit == facts.UNLIMITED:
            return
        old = [s for s in rollout.old if not deleting(s)]
        old.sort(key=lambda s: (facts.revision(s), s["metadata"]["creationTimestamp"]))
        for replica_set in old[: max(0, len(old) - int(limit))]:
            meta = replica_set["metadata"]
            observed = (replica_set.get("status") or {}).get("observedGeneration", 0)
            if (
                facts.counted(replica_set, "replicas")
                or facts.replicas(replica_set)
                or meta.get("generation", 0) > observed
            ):
                continue
            try:
                await self._client.delete(REPLICASETS, meta["namespace"], meta["name"], uid=meta["uid"])
            except StatusError as e:
                if e.code not in (404, 409):
                    raise

    # ---- status

    @staticmethod
    def _note_pause(rollout: _Rollout) -> None:
        deployment = rollout.deployment
        found = condition(deployment, "Progressing")
        reason = found.get("reason") if found is not None else ""
        if facts.deadline(deployment) is None or reason == "ProgressDeadlineExceeded":
            return
        if facts.paused(deployment) and reason != "DeploymentPaused":
            rollout.progress("Unknown", "DeploymentPaused", "Deployment is paused")
        elif not facts.paused(deployment) and reason == "DeploymentPaused":
            rollout.progress("Unknown", "DeploymentResumed", "Deployment is resumed")

    @staticmethod
    def _count(rollout: _Rollout) -> None:
        rollout.deployment["status"] = status.counted(rollout.deployment, rollout.new, rollout.all)

    @staticmethod
    def _finish(rollout: _Rollout) -> None:
        rollout.deployment["status"] = status.of_rollout(rollout.deployment, rollout.new, rollout.all)

    async def _write(self, rollout: _Rollout) -> None:
        new, old = rollout.deployment, rollout.original
        if new.get("status", {}) == (old.get("status") or {}) and new["metadata"] == old["metadata"]:
            return
        try:
            await self._client.update(DEPLOYMENTS, new, subresource="status")
        except StatusError as e:
            if e.code != 404:
                raise

    async def _refuse_all(self, deployment: Object) -> None:
        self._events.event(
            deployment,
            "Warning",
            "SelectingAll",
            "This deployment is selecting all pods. A non-empty selector is required.",
        )
        generation = deployment["metadata"].get("generation", 0)
        state = deployment.get("status") or {}
        if state.get("observedGeneration", 0) < generation:
            changed = deep_copy(deployment)
            changed["status"] = {**state, "observedGeneration": generation}
            await self._client.update(DEPLOYMENTS, changed, subresource="status")


def _set_size(deployment: Object, replica_set: Object, size: int) -> None:
    wanted = facts.replicas(deployment)
    replica_set["spec"]["replicas"] = size
    meta = replica_set["metadata"]
    meta["annotations"] = {
        **(meta.get("annotations") or {}),
        facts.DESIRED_REPLICAS: str(wanted),
        facts.MAX_REPLICAS: str(wanted + facts.max_surge(deployment)),
    }
