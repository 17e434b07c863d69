# SPDX-License-Identifier: BSD-2-Clause
"""The little of etcd that test apiservers share: EndpointSlices, in a file.

A line is a change; revisions only go up. Every apiserver of a world follows
the file, so all of them agree on resource versions, one that was killed finds
everything again, and one that was stopped catches up.

    etcd.put("kubernetes", ["192.168.77.11"])    that slice, from now on
    etcd.put("kubernetes", [])                   no endpoints
    etcd.put("more", [...], port=8443, service="other", family="IPv6")
    etcd.put("raw", [{"addresses": ["10.0.0.1"], "conditions": {"ready": False}}])
    etcd.delete("more")
    etcd.burst(10000, "kubernetes", [...])       so many changes in one go: every second one
                                                 lacks the last address, the final one is whole
    etcd.advance(100)                            revisions that went to other objects
    etcd.compact()                               what is older than now is gone: watches
                                                 that want it get 410
Each returns the revision that it led to. etcd.listed() are the addresses of a slice.

Apiservers that have a lease (apiserver_life.py) write the slice `kubernetes` themselves.
"""

import bisect
import contextlib
import copy
import fcntl
import json
import os
import uuid

from system import WorldError

FIRST_REVISION = 100
GROUP_VERSION = "discovery.k8s.io/v1"
SERVICE_LABEL = "kubernetes.io/service-name"
CREATED = "2025-09-01T08:00:00Z"


def endpoint_slice(name, endpoints, port=6443, service="kubernetes", namespace="default",
                   family=None, labels=None):
    """An EndpointSlice as kube-apiserver writes its own. endpoints: addresses,
    or endpoint objects that are taken as they are."""
    endpoints = [e if isinstance(e, dict) else {"addresses": [e], "conditions": {"ready": True}}
                 for e in endpoints]
    if family is None:
        family = "IPv6" if any(":" in a for a in addresses_of(endpoints)) else "IPv4"
    return {
        "metadata": {
            "name": name,
            "namespace": namespace,
            "labels": {SERVICE_LABEL: service, **(labels or {})},
            "managedFields": [{"manager": "kube-apiserver", "operation": "Update",
                               "apiVersion": GROUP_VERSION, "time": CREATED,
                               "fieldsType": "FieldsV1", "fieldsV1": {"f:addressType": {}}}],
        },
        "addressType": family,
        "endpoints": endpoints,
        "ports": [{"name": "https", "protocol": "TCP", "port": port}],
    }


def addresses_of(endpoints):
    return [a for e in endpoints for a in e.get("addresses") or []]


def key_of(obj):
    return obj["metadata"]["namespace"], obj["metadata"]["name"]


def encode(value):
    return json.dumps(value, separators=(",", ":")).encode()


class Event:
    """One change: what was, what is (None: nothing), and its revision."""

    __slots__ = ("revision", "before", "after", "text")

    def __init__(self, revision, before, after):
        self.revision = revision
        self.before = before
        self.after = after
        self.text = None  # the object as a client sees it, once one asked

    def encoded(self):
        if self.text is None:
            obj = self.after
            if obj is None:  # the last state, with the deletion's version
                obj = copy.deepcopy(self.before)
                obj["metadata"]["resourceVersion"] = str(self.revision)
            self.text = encode(typed(obj))
        return self.text


def typed(obj):
    """With kind and version, which items of a list go without."""
    return {"kind": "EndpointSlice", "apiVersion": GROUP_VERSION, **obj}


class Store:
    """What the file says, up to where it has been read."""

    def __init__(self, path):
        self.file = open(path, "rb")  # pylint: disable=consider-using-with
        self.rest = b""
        self.revision = FIRST_REVISION
        self.compacted = 0
        self.objects = {}
        self.leases = {}  # address -> when it ends
        self.events = []
        self.revisions = []  # of the events, to search in

    def follow(self):
        """Reads what is new; has anything come?"""
        data = self.file.read()
        lines = (self.rest + data).split(b"\n")
        self.rest = lines.pop()
        for line in lines:
            self.apply(json.loads(line))
        return bool(lines)

    def apply(self, record):
        self.revision = record["revision"]
        if "put" in record:
            self.apply_put(record["put"])
        elif "delete" in record:
            self.add_event(self.objects.pop(tuple(record["delete"])), None)
        elif "compact" in record:
            self.compacted = record["compact"]
        elif "lease" in record:
            address, until = record["lease"]
            self.leases[address] = until

    def apply_put(self, obj):
        key = key_of(obj)
        before = self.objects.get(key)
        metadata = obj["metadata"]
        if before:
            metadata["uid"] = before["metadata"]["uid"]
            metadata["generation"] = before["metadata"]["generation"] + 1
        else:
            metadata["uid"] = str(uuid.uuid5(uuid.NAMESPACE_OID, f"{key} {self.revision}"))
            metadata["generation"] = 1
        metadata["creationTimestamp"] = CREATED
        metadata["resourceVersion"] = str(self.revision)
        self.objects[key] = obj
        self.add_event(before, obj)

    def add_event(self, before, after):
        self.events.append(Event(self.revision, before, after))
        self.revisions.append(self.revision)

    def after(self, revision, limit):
        """The next events behind a revision."""
        start = bisect.bisect_right(self.revisions, revision)
        return self.events[start:start + limit]

    def close(self):
        self.file.close()


@contextlib.contextmanager
def locked(path):
    """The file, to be added to by nobody else for the length of the block."""
    with open(path, "ab") as f:
        fcntl.flock(f, fcntl.LOCK_EX)
        yield f


class Etcd:
    """The side that writes. See the top of this file."""

    def __init__(self, path):
        self.path = path
        with open(path, "ab"):
            pass  # there from now on
        self.store = Store(path)

    @contextlib.contextmanager
    def locked(self):
        """One writer at a time, who has read everything."""
        with locked(self.path) as f:
            self.store.follow()
            yield f

    def write(self, *changes):
        """Appends the changes as one, so that a follower gets them in one go."""
        return self.transact(lambda _store: changes)

    def transact(self, decide):
        """The same with the changes that decide(store) wants; what it sees is the last word."""
        with self.locked() as f:
            changes = decide(self.store)
            for change in changes:
                if "delete" in change and tuple(change["delete"]) not in self.store.objects:
                    raise WorldError(f"etcd: no EndpointSlice {'/'.join(change['delete'])} to "
                                     f"delete; there are {self.names()}")
            revision = self.store.revision
            f.write(b"".join(encode({"revision": revision + i, **change}) + b"\n"
                             for i, change in enumerate(changes, 1)))
        self.store.follow()
        return self.store.revision

    def names(self):
        return sorted("/".join(key) for key in self.store.objects)

    @property
    def revision(self):
        self.store.follow()
        return self.store.revision

    def listed(self, name="kubernetes", namespace="default"):
        self.store.follow()
        obj = self.store.objects.get((namespace, name))
        return addresses_of(obj["endpoints"]) if obj else []

    def put(self, name, endpoints, **fields):
        return self.write({"put": endpoint_slice(name, endpoints, **fields)})

    def delete(self, name, namespace="default"):
        return self.write({"delete": [namespace, name]})

    def burst(self, count, name, endpoints, **fields):
        endpoints = list(endpoints)
        return self.write(*({"put": endpoint_slice(
            name, endpoints if (count - i) % 2 else endpoints[:-1], **fields)}
            for i in range(count)))

    def advance(self, count):
        return self.write(*({} for _ in range(count)))

    def compact(self):
        return self.write({"compact": self.revision})

    def close(self):
        self.store.close()
        os.unlink(self.path)
