"""Priority and fairness: a flood of one user's requests does not starve another's.

`classification` finds a request's FlowSchema, `levels` counts seats and queues what has to wait, `control` keeps both in step
with the FlowSchema and PriorityLevelConfiguration objects and stands around the handlers, `dangling` writes their status.

Most requests are answered in the very call that takes them up, so seats mean something else than upstream: what is answered
at once holds its seat for the rest of the loop's turn, what takes longer until it is answered. And a level may work for some
milliseconds a turn and no longer, however many seats it has: then whoever else is there comes next.

Upstream: `k8s.io/apiserver/pkg/util/flowcontrol` and KEP 1040.
"""
