"""Changes of stored objects, and who wants to be told of which.

A change goes out once a *selection* (resource, namespace, selectors, rendering), not once a watcher: watchers who
want the same are one `Group`; an event is encoded and framed once, and the same bytes are written to each stream
without a task of its own.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from typing import Literal, Protocol

from sampan.api.errors import Object
from sampan.api.resources import Resource
from sampan.apiserver.records import Record
from sampan.apiserver.rendering import Rendering
from sampan.client.types import WatchEvent
from sampan.transport.types import frame

log = logging.getLogger(__name__)
ChangeType = Literal["ADDED", "MODIFIED", "DELETED"]
INITIAL_EVENTS_END = "k8s.io/initial-events-end"


class Change:
    """One write. `record` is the new state (on DELETED the last one, under the delete's revision)."""

    __slots__ = ("_events", "_frames", "_left", "previous", "record", "type")

    def __init__(self, type_: ChangeType, record: Record, previous: Record | None) -> None:
        self.type = type_
        self.record = record
        self.previous = previous
        self._frames: dict[tuple[str, Rendering], bytes] | None = None
        self._events: dict[str, WatchEvent] | None = None
        self._left: Record | None = None

    def shown(self, type_: ChangeType) -> Record:
        """What a watcher is shown: of an object that left its selection, the state before under the new revision."""
        if type_ == self.type or type_ != "DELETED" or self.previous is None:
            return self.record
        if self._left is None:
            self._left = self.previous.at(self.record.revision)
        return self._left

    def framed(self, type_: ChangeType, rendering: Rendering) -> bytes:
        """The event as one HTTP chunk; made once for all who want it so."""
        if self._frames is None:
            self._frames = {}
        made = self._frames.get((type_, rendering))
        if made is None:
            made = framed_event(type_, rendering.item(self.shown(type_)))
            self._frames[type_, rendering] = made
        return made

    def event(self, type_: ChangeType) -> WatchEvent:
        """The event decoded; shared by all watchers in this process."""
        if self._events is None:
            self._events = {}
        made = self._events.get(type_)
        if made is None:
            made = self._events[type_] = WatchEvent(type_, self.shown(type_).obj)
        return made

    def forget(self) -> None:
        """Let go of what only the moment of the commit needs."""
        self._frames = None
        self._events = None
        self._left = None


def framed_event(type_: str, body: bytes) -> bytes:
    return frame(b'{"type":"%b","object":%b}\n' % (type_.encode(), body))


class Selection:
    """What a list or watch is about: a namespace ("" for all) and the selectors, already parsed."""

    __slots__ = ("_head_only", "field_text", "fields", "label_text", "labels", "namespace", "resource")

    def __init__(
        self, resource: Resource, namespace: str = "", label_selector: str = "", field_selector: str = ""
    ) -> None:
        from sampan.api import selectors

        self.resource = resource
        self.namespace = namespace
        self.label_text = label_selector
        self.field_text = field_selector
        self.labels = selectors.parse_labels(label_selector) if label_selector.strip() else None
        self.fields = selectors.parse_fields(resource, field_selector) if field_selector.strip() else None
        if self.labels is not None and self.labels.empty:
            self.labels = None
        if self.fields is not None and self.fields.empty:
            self.fields = None
        self._head_only = self.fields is not None and all(
            t[0] in ("metadata.name", "metadata.namespace") for t in self.fields.terms
        )

    @property
    def everything(self) -> bool:
        """Whether all objects of the namespace are selected."""
        return self.labels is None and self.fields is None

    def matches(self, record: Record) -> bool:
        """Whether the selectors take this object; its namespace is looked at elsewhere."""
        if self.labels is not None and not self.labels.matches(record.labels):
            return False
        if self.fields is None:
            return True
        if self._head_only:
            head = {"metadata.name": record.name, "metadata.namespace": record.namespace}
            return self.fields.matches(head)
        return self.fields.matches(record.fields(self.resource))

    @property
    def only_name(self) -> str | None:
        """The one name that can match, if the field selector asks for one."""
        return self.fields.exact("metadata.name") if self.fields is not None else None

    def classify(self, change: Change) -> ChangeType | None:
        """What this change is to somebody who sees only the selection; None where it is nothing."""
        if self.namespace and change.record.namespace != self.namespace:
            return None
        if self.labels is None and self.fields is None:
            return change.type
        now = change.type != "DELETED" and self.matches(change.record)
        before = change.previous is not None and self.matches(change.previous)
        if now:
            return "MODIFIED" if before else "ADDED"
        return "DELETED" if before else None


class Watcher(Protocol):
    """One who is told. Neither call may block or raise."""

    bookmarks: bool

    def deliver(self, changes: Sequence[tuple[ChangeType, Change]], framed: bytes) -> None:
        """The changes of one commit that concern the watcher; `framed` is b"" for groups without a rendering."""

    def bookmark(self, revision: int) -> None: ...

    def end(self) -> None:
        """The server is closing."""

    def cut(self) -> None:
        """Something was missed: end at once, with nothing more said, so that whoever watches goes on from where it is."""


class Group:
    """All watchers of one selection in one rendering (None: decoded, in this process)."""

    __slots__ = ("key", "rendering", "selection", "watchers")

    def __init__(self, key: tuple[object, ...], selection: Selection, rendering: Rendering | None) -> None:
        self.key = key
        self.selection = selection
        self.rendering = rendering
        self.watchers: dict[Watcher, None] = {}

    def deliveries(self, changes: Sequence[Change], before: int) -> Sequence[Delivery]:
        """What is to be told to whom; `before` is the revision before all these. What cannot be shown ends the watches
        of this selection and nobody else's."""
        try:
            mine = [(t, c) for c in changes if (t := self.selection.classify(c)) is not None]
            if not mine:
                return ()
            if (rendering := self.rendering) is None:
                framed = b""
            elif len(mine) == 1:
                framed = mine[0][1].framed(mine[0][0], rendering)
            else:
                framed = b"".join([c.framed(t, rendering) for t, c in mine])
        except Exception:  # whatever it is: these watches have missed something, others have not
            log.exception("watches of %s are cut off: an event cannot be shown", self.selection.resource)
            self.cut()
            return ()
        # Those who are here now: whoever joins later has caught up with these changes by himself.
        watchers = list(self.watchers)
        if rendering is None:  # in this process: told at once, before whoever wrote goes on
            for watcher in watchers:
                self.deliver(watcher, mine, framed)
            return ()
        return (Delivery(self, before, iter(watchers), mine, framed),)

    def deliver(self, watcher: Watcher, changes: Sequence[tuple[ChangeType, Change]], framed: bytes) -> None:
        """Tell one watcher. A failure ends his watch and nobody else's."""
        try:
            watcher.deliver(changes, framed)
        except Exception:
            log.exception("a watch of %s is cut off", self.selection.resource)
            self.watchers.pop(watcher, None)
            watcher.cut()

    def cut(self) -> None:
        """Cut off every watcher."""
        watchers, self.watchers = list(self.watchers), {}
        for watcher in watchers:
            watcher.cut()


class Delivery:
    """Changes on their way to the watchers of one group; `watchers` is whoever is left."""

    __slots__ = ("before", "changes", "framed", "group", "watchers")

    def __init__(
        self,
        group: Group,
        before: int,
        watchers: Iterator[Watcher],
        changes: Sequence[tuple[ChangeType, Change]],
        framed: bytes,
    ) -> None:
        self.group = group
        self.before = before
        """The revision before the commit that they come from."""
        self.watchers = watchers
        self.changes = changes
        self.framed = framed


def initial(records: Sequence[Record]) -> list[Change]:
    """The state at the start of a watch, as additions."""
    return [Change("ADDED", r, None) for r in records]


def bookmark_object(resource: Resource, revision: int, *, initial_end: bool = False) -> Object:
    """The object of a BOOKMARK event; `initial_end` marks the end of the initial state."""
    metadata: Object = {"resourceVersion": str(revision), "creationTimestamp": None}
    if initial_end:
        metadata["annotations"] = {INITIAL_EVENTS_END: "true"}
    return {"kind": resource.kind, "apiVersion": resource.api_version, "metadata": metadata}
