from __future__ import annotations

import asyncio

import pytest

from sampan.api.errors import Object, StatusError
from sampan.api.objects import deep_copy
from sampan.apiserver import admission, authorization
from sampan.apiserver.admission.namespace_lifecycle import NamespaceLifecycle
from sampan.apiserver.admission.service_account import MIRROR, MOUNT_PATH, ServiceAccount
from sampan.apiserver.types import LOOPBACK, Attributes, User

from .fakes import FakeCache, config, make, node_user, pod, writes

ALICE = User("alice", "", ("system:authenticated",))


def chain(cache: FakeCache) -> admission.Chain:
    return admission.build(config(), cache, None, authorization.build(config(), cache))  # type: ignore[arg-type]


async def admit(cache: FakeCache, attributes: Attributes) -> Object:
    whole = chain(cache)
    await whole.mutate(attributes)
    before = deep_copy(attributes.obj)
    await whole.validate(attributes)
    assert attributes.obj == before, "validation changes nothing"
    return attributes.obj or {}


async def refusal(cache: FakeCache, attributes: Attributes) -> StatusError:
    with pytest.raises(StatusError) as e:
        await admit(cache, attributes)
    return e.value


# ---- NamespaceLifecycle


async def test_a_namespace_must_exist() -> None:
    error = await refusal(FakeCache(), writes(ALICE, make("ConfigMap", "c", "nowhere")))
    assert (error.code, error.message) == (404, 'namespaces "nowhere" not found')


async def test_nothing_is_made_in_a_namespace_that_is_going() -> None:
    cache = FakeCache(make("Namespace", "dev", status={"phase": "Terminating"}))
    config_map = make("ConfigMap", "c", "dev")
    error = await refusal(cache, writes(ALICE, config_map))
    assert error.message == (
        'configmaps "c" is forbidden: unable to create new content in namespace dev because it is being terminated'
    )
    assert error.details is not None
    assert error.details["causes"] == [
        {
            "reason": "NamespaceTerminating",
            "message": "namespace dev is being terminated",
            "field": "metadata.namespace",
        }
    ]
    await admit(cache, writes(ALICE, config_map, "UPDATE", config_map))
    await admit(cache, writes(ALICE, None, "DELETE", config_map))


@pytest.mark.parametrize("name", ["default", "kube-system", "kube-public"])
async def test_the_systems_namespaces_stay(name: str) -> None:
    error = await refusal(FakeCache(), writes(ALICE, None, "DELETE", make("Namespace", name)))
    assert error.message == f'namespaces "{name}" is forbidden: this namespace may not be deleted'


async def test_other_namespaces_may_go_and_cluster_objects_need_none() -> None:
    await admit(FakeCache(), writes(ALICE, None, "DELETE", make("Namespace", "kube-node-lease")))
    await NamespaceLifecycle(FakeCache()).mutate(writes(ALICE, make("Node", "n")))


# ---- pods


def home(*more: Object) -> FakeCache:
    return FakeCache(make("Namespace", "default"), make("ServiceAccount", "default"), *more)


async def test_a_pod_gets_what_upstream_gives_it() -> None:
    made = make("Pod", "web", spec={"containers": [{"name": "a"}], "initContainers": [{"name": "i"}]})
    spec = (await admit(home(), writes(ALICE, made)))["spec"]
    assert spec["serviceAccountName"] == spec["serviceAccount"] == "default"
    assert (spec["priority"], spec["preemptionPolicy"]) == (0, "PreemptLowerPriority")
    assert [(t["key"], t["tolerationSeconds"], t["effect"]) for t in spec["tolerations"]] == [
        ("node.kubernetes.io/not-ready", 300, "NoExecute"),
        ("node.kubernetes.io/unreachable", 300, "NoExecute"),
    ]
    (volume,) = spec["volumes"]
    assert volume["name"].startswith("kube-api-access-")
    assert len(volume["name"]) == len("kube-api-access-") + 5
    assert volume["projected"] == {
        "defaultMode": 420,
        "sources": [
            {"serviceAccountToken": {"expirationSeconds": 3607, "path": "token"}},
            {"configMap": {"name": "kube-root-ca.crt", "items": [{"key": "ca.crt", "path": "ca.crt"}]}},
            {
                "downwardAPI": {
                    "items": [
                        {
                            "path": "namespace",
                            "fieldRef": {"apiVersion": "v1", "fieldPath": "metadata.namespace"},
                        }
                    ]
                }
            },
        ],
    }
    mount = {"name": volume["name"], "readOnly": True, "mountPath": MOUNT_PATH}
    assert spec["containers"][0]["volumeMounts"] == spec["initContainers"][0]["volumeMounts"] == [mount]


async def test_a_pod_without_a_service_account_is_refused() -> None:
    attributes = writes(ALICE, make("Pod", "web", spec={"serviceAccountName": "bot", "containers": []}))
    error = await refusal(home(), attributes)
    assert error.message == (
        'pods "web" is forbidden: error looking up service account default/bot: serviceaccount "bot" not found'
    )


async def test_a_pod_waits_for_the_default_account_of_a_new_namespace() -> None:
    cache = FakeCache()
    plugin = ServiceAccount(cache, patience=30)
    attributes = writes(ALICE, make("Pod", "web", spec={"containers": [{"name": "a"}]}))
    async with asyncio.TaskGroup() as group:
        group.create_task(plugin.mutate(attributes))
        await asyncio.sleep(0)
        cache.put(make("ServiceAccount", "default"))
    assert attributes.obj is not None
    assert attributes.obj["spec"]["volumes"]
    assert not plugin._waiting

    impatient = ServiceAccount(FakeCache(), patience=0)
    with pytest.raises(StatusError, match='serviceaccount "default" not found'):
        await impatient.mutate(writes(ALICE, make("Pod", "web", spec={"containers": []})))


async def test_who_does_not_want_the_token_does_not_get_it() -> None:
    account = make("ServiceAccount", "quiet", automountServiceAccountToken=False, imagePullSecrets=[{"name": "reg"}])  # fmt: skip
    cache = home(account)

    async def spec(**given: object) -> Object:
        made = make("Pod", "web", spec={"containers": [{"name": "a"}], **given})
        return (await admit(cache, writes(ALICE, made)))["spec"]  # type: ignore[no-any-return]

    quiet = await spec(serviceAccountName="quiet")
    assert "volumes" not in quiet
    assert quiet["imagePullSecrets"] == [{"name": "reg"}]
    assert (await spec(serviceAccountName="quiet", automountServiceAccountToken=True))["volumes"]
    assert "volumes" not in await spec(automountServiceAccountToken=False)
    own = {"name": "mine", "mountPath": MOUNT_PATH}
    mounted = await spec(
        containers=[{"name": "a", "volumeMounts": [own]}], volumes=[{"name": "mine", "emptyDir": {}}]
    )
    assert mounted["volumes"] == [{"name": "mine", "emptyDir": {}}]
    assert mounted["containers"][0]["volumeMounts"] == [own]


async def test_given_tolerations_stand() -> None:
    given = [{"key": "node.kubernetes.io/not-ready", "operator": "Exists", "effect": "NoExecute"}]
    made = pod(tolerations=given)
    spec = (await admit(home(), writes(ALICE, made)))["spec"]
    assert [t["key"] for t in spec["tolerations"]] == [
        "node.kubernetes.io/not-ready",
        "node.kubernetes.io/unreachable",
    ]
    assert "tolerationSeconds" not in spec["tolerations"][0]
    everything = pod(tolerations=[{"operator": "Exists"}])
    assert len((await admit(home(), writes(ALICE, everything)))["spec"]["tolerations"]) == 1


async def test_priority_classes() -> None:
    critical = await admit(home(), writes(ALICE, pod(priorityClassName="system-node-critical")))
    assert critical["spec"]["priority"] == 2000001000
    error = await refusal(home(), writes(ALICE, pod(priorityClassName="high")))
    assert error.message == 'pods "web" is forbidden: no PriorityClass with name high was found'
    error = await refusal(home(), writes(ALICE, pod(priority=7)))
    assert "the integer value of priority (7) must not be provided in pod spec" in error.message
    old = pod(priority=5)
    assert (await admit(home(), writes(ALICE, pod(), "UPDATE", old)))["spec"]["priority"] == 5


async def test_a_name_to_be_generated_shows_as_its_stem() -> None:
    made = pod(priorityClassName="high")
    made["metadata"] = {"generateName": "web-", "namespace": "default"}
    error = await refusal(home(), writes(ALICE, made))
    assert error.message.startswith('pods "web-" is forbidden')


# ---- nodes


async def test_a_new_node_is_not_ready() -> None:
    node = await admit(FakeCache(), writes(LOOPBACK, make("Node", "n1")))
    assert node["spec"]["taints"] == [{"key": "node.kubernetes.io/not-ready", "effect": "NoSchedule"}]


def labelled(**labels: str) -> Object:
    return make("Node", "n1", metadata={"labels": labels})


async def test_a_node_changes_itself_alone() -> None:
    n1 = node_user("n1")
    cache = FakeCache(make("Node", "n2"))
    await admit(cache, writes(n1, labelled(**{"kubernetes.io/hostname": "n1", "tier": "web"})))
    await admit(cache, writes(n1, labelled(), "UPDATE", labelled(), "status"))
    error = await refusal(cache, writes(n1, make("Node", "n2"), "UPDATE", make("Node", "n2"), "status"))
    assert error.message == 'nodes "n2" is forbidden: node "n1" is not allowed to modify node "n2"'
    restricted = labelled(**{"node-restriction.kubernetes.io/secure": "true"})
    error = await refusal(cache, writes(n1, restricted))
    assert (
        "is not allowed to set the following labels: node-restriction.kubernetes.io/secure" in error.message
    )
    tainted = {
        **labelled(),
        "spec": {"taints": [{"key": "node.kubernetes.io/not-ready", "effect": "NoSchedule"}]},
    }
    error = await refusal(cache, writes(n1, {**labelled(), "spec": {}}, "UPDATE", tainted))
    assert "is not allowed to modify taints" in error.message


async def test_a_node_touches_its_own_pods_alone() -> None:
    n1 = node_user("n1")
    mine, other = pod("mine", node="n1"), pod("other", node="n2")
    cache = home(mine, other, make("Node", "n1"))
    await admit(cache, writes(n1, mine, "UPDATE", mine, "status"))
    await admit(cache, writes(n1, None, "DELETE", mine))
    for operation, obj, sub, why in (
        ("UPDATE", other, "status", 'node "n1" can only update pod status for pods with spec.nodeName set to itself'),
        ("UPDATE", mine, "", 'unexpected operation "UPDATE", node "n1" can only create and delete mirror pods'),
        ("CREATE", pod("new", node="n1"), "", "can only create mirror pods"),
    ):  # fmt: skip
        error = await refusal(cache, writes(n1, deep_copy(obj), operation, obj, sub))
        assert why in error.message
    error = await refusal(cache, writes(n1, None, "DELETE", other))
    assert 'node "n1" can only delete pods with spec.nodeName set to itself' in error.message
    relabelled = deep_copy(mine)
    relabelled["metadata"]["labels"] = {"app": "x"}
    error = await refusal(cache, writes(n1, relabelled, "UPDATE", mine, "status"))
    assert "cannot update labels through pod status" in error.message
    eviction = Attributes(
        n1,
        "CREATE",
        writes(n1, mine).resource,
        "default",
        "other",
        "eviction",
        {"metadata": {"name": "other"}},
        None,
    )
    assert "can only evict pods" in (await refusal(cache, eviction)).message


async def test_a_mirror_pod_refers_to_nothing() -> None:
    node = make("Node", "n1")
    cache = home(node)
    owner = {"apiVersion": "v1", "kind": "Node", "name": "n1", "uid": node["metadata"]["uid"], "controller": True}  # fmt: skip
    meta = {"annotations": {MIRROR: "hash"}, "ownerReferences": [owner]}
    mirror = make("Pod", "static", metadata=meta, spec={"nodeName": "n1", "containers": [{"name": "c"}]})
    made = await admit(cache, writes(node_user("n1"), deep_copy(mirror)))
    assert "serviceAccountName" not in made["spec"]
    secretive = deep_copy(mirror)
    secretive["spec"]["volumes"] = [{"name": "s", "secret": {"secretName": "x"}}]
    error = await refusal(cache, writes(node_user("n1"), secretive))
    assert "can not create pods that reference secrets" in error.message
    foreign = deep_copy(mirror)
    foreign["metadata"]["ownerReferences"] = []
    assert "owner reference" in (await refusal(cache, writes(node_user("n1"), foreign))).message


async def test_a_node_has_one_lease() -> None:
    cache = FakeCache(make("Namespace", "kube-node-lease"))
    await admit(cache, writes(node_user("n1"), make("Lease", "n1", "kube-node-lease")))
    error = await refusal(cache, writes(node_user("n1"), make("Lease", "n2", "kube-node-lease")))
    assert "same name as the requesting node" in error.message


# ---- RBAC


def role(verbs: list[str], resources: list[str], kind: str = "Role") -> Object:
    return make(kind, "r", "default", rules=[{"apiGroups": [""], "resources": resources, "verbs": verbs}])


def binding(kind: str, role_kind: str, name: str, user: str) -> Object:
    ref = {"apiGroup": "rbac.authorization.k8s.io", "kind": role_kind, "name": name}
    return make(kind, f"{name}-{user}", "default", roleRef=ref, subjects=[{"kind": "User", "name": user}])


async def test_a_node_offers_its_own_devices_alone() -> None:
    node = node_user("n1")
    mine, other = (make("ResourceSlice", n, spec={"nodeName": n, "driver": "d.io"}) for n in ("n1", "n2"))
    await admit(FakeCache(), writes(node, mine))
    await admit(FakeCache(), writes(node, None, "DELETE", mine))
    for verb, attributes in (("create", writes(node, other)), ("delete", writes(node, None, "DELETE", other))):  # fmt: skip
        error = await refusal(FakeCache(), attributes)
        assert f"can only {verb} ResourceSlice with the same NodeName as the requesting node" in error.message


async def test_nobody_gives_away_more_than_they_have() -> None:
    mine = {**role(["get", "list"], ["pods"]), "metadata": {"name": "mine", "namespace": "default"}}
    cache = home(mine, binding("RoleBinding", "Role", "mine", "alice"))
    await admit(cache, writes(ALICE, role(["get"], ["pods"])))
    error = await refusal(cache, writes(ALICE, role(["get", "delete"], ["pods"])))
    assert error.message == (
        'roles.rbac.authorization.k8s.io "r" is forbidden: user "alice" (groups=["system:authenticated"]) is '
        "attempting to grant RBAC permissions not currently held:\n"
        '{APIGroups:[""], Resources:["pods"], Verbs:["delete"]}'
    )
    await admit(cache, writes(LOOPBACK, role(["*"], ["*"])))

    strong = {
        **role(["*"], ["secrets"], "ClusterRole"),
        "metadata": {"name": "strong"},
    }
    cache.put(strong)
    await admit(cache, writes(ALICE, binding("RoleBinding", "Role", "mine", "bob")))
    given = binding("RoleBinding", "ClusterRole", "strong", "bob")
    assert (await refusal(cache, writes(ALICE, given))).code == 403
    binder = make(
        "Role",
        "binder",
        "default",
        rules=[
            {"apiGroups": ["rbac.authorization.k8s.io"], "resources": ["clusterroles"], "verbs": ["bind"]}
        ],
    )
    cache.put(binder)
    cache.put(binding("RoleBinding", "Role", "binder", "alice"))
    await admit(cache, writes(ALICE, given))
    old = role(["delete"], ["pods"])
    renamed = {**deep_copy(old), "metadata": {**old["metadata"], "labels": {"a": "b"}}}
    await admit(cache, writes(ALICE, renamed, "UPDATE", old))
