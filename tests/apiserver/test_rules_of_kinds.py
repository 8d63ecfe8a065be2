"""Rules that show only through the API: which group an Event is sent to, what is refused or warned of by name."""

from __future__ import annotations

from .conftest import Api

CORE, NEW = "/api/v1/namespaces/default/events", "/apis/events.k8s.io/v1/namespaces/default/events"
MERGE = {"content_type": "application/merge-patch+json"}


async def test_the_new_group_is_strict_and_the_old_one_is_not(api: Api) -> None:
    event = {"apiVersion": "v1", "kind": "Event", "metadata": {"name": "a"}, "involvedObject": {"namespace": "default", "name": "p"}}  # fmt: skip
    await api.ok("POST", CORE, event)
    new = {"apiVersion": "events.k8s.io/v1", "kind": "Event", "metadata": {"name": "b"}, "regarding": {"namespace": "default", "name": "p"}}  # fmt: skip
    reply = await api("POST", NEW, new)
    assert reply.status == 422
    assert [c["field"] for c in reply.json["details"]["causes"]] == ["eventTime", "type"]
    more = {"eventTime": "2026-01-01T00:00:00.000000Z", "type": "Normal", "reportingController": "c", "reportingInstance": "i", "action": "A", "reason": "R"}  # fmt: skip
    await api.ok("POST", NEW, {**new, **more})
    reply = await api("PATCH", f"{NEW}/b", {"note": "other"}, **MERGE)
    assert (reply.status, reply.json["details"]["causes"][0]["field"]) == (422, "message")
    await api.ok("PATCH", f"{CORE}/b", {"message": "other"}, **MERGE)
    shown = await api.ok("GET", f"{NEW}/b")
    assert shown["note"] == "other"


async def test_a_network_policy_is_kept_with_its_defaults_and_refused_with_its_problems(api: Api) -> None:
    path = "/apis/networking.k8s.io/v1/namespaces/default/networkpolicies"
    policy = {"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "metadata": {"name": "p"}, "spec": {"podSelector": {}, "policyTypes": ["Both"]}}  # fmt: skip
    reply = await api("POST", path, policy)
    assert [c["field"] for c in reply.json["details"]["causes"]] == ["spec.policyTypes[0]"]
    spec = {"podSelector": {}, "egress": [{"ports": [{"port": 53}]}]}
    made = await api.ok("POST", path, {**policy, "spec": spec})
    assert made["spec"]["policyTypes"] == ["Ingress", "Egress"]
    assert made["spec"]["egress"] == [{"ports": [{"port": 53, "protocol": "TCP"}]}]
    assert made["metadata"]["generation"] == 1


async def test_a_binding_tells_all_its_problems(api: Api) -> None:
    binding = {"apiVersion": "v1", "kind": "Binding", "metadata": {"name": "p"}, "target": {"kind": "Pod", "name": ""}}  # fmt: skip
    for path in ("/api/v1/namespaces/default/bindings", "/api/v1/namespaces/default/pods/p/binding"):
        reply = await api("POST", path, binding)
        assert [c["field"] for c in reply.json["details"]["causes"]] == ["target.kind", "target.name"]
