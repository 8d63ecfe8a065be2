"""The audit log: who asked for what, and what came of it, as the policy file wants it.

`policy` decides how much is told of a request, `events` makes what is told, `log` writes it, `auditor` stands around the
handlers. What this process does by itself (its controllers, its scheduler) asks no handler and is not told.

Upstream: `k8s.io/apiserver/pkg/audit`, `pkg/endpoints/filters/audit.go`.
"""
