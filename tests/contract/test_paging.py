"""Lists in pages, and where a watch says how far it is."""

import pytest

from tests.cluster import Cluster, Object

pytestmark = pytest.mark.contract

API_VERSION = "argoproj.io/v1alpha1"


def filled(cluster: Cluster, count: int = 5) -> str:
    """A fresh namespace with results a, b, c …, every second of them labelled `l`."""
    namespace = cluster.namespace()
    for index in range(count):
        create(cluster, namespace, chr(ord("a") + index), {"l": "1"} if index % 2 else {})
    return namespace


def create(cluster: Cluster, namespace: str, name: str, labels: dict[str, str] | None = None) -> None:
    metadata = {"name": name, "namespace": namespace, "labels": labels or {}}
    status, body = cluster.create(
        {"apiVersion": API_VERSION, "kind": "WorkflowTaskResult", "metadata": metadata}
    )
    assert status == 201, body


def listed(cluster: Cluster, namespace: str, **query: str) -> tuple[int, Object]:
    return cluster.request("GET", cluster.path("WorkflowTaskResult", namespace), query=query)[:2]


def names(body: Object) -> str:
    return "".join(item["metadata"]["name"] for item in body["items"])


def test_pages_follow_each_other_to_the_end(cluster: Cluster) -> None:
    namespace = filled(cluster)
    _, first = listed(cluster, namespace, limit="2")
    assert (names(first), first["metadata"]["remainingItemCount"]) == ("ab", 3)
    _, second = listed(cluster, namespace, limit="2", **{"continue": first["metadata"]["continue"]})
    assert (names(second), second["metadata"]["remainingItemCount"]) == ("cd", 1)
    _, last = listed(cluster, namespace, limit="2", **{"continue": second["metadata"]["continue"]})
    assert names(last) == "e"
    assert last["metadata"].keys() == {"continue", "resourceVersion"}
    assert last["metadata"]["continue"] == "", "there for custom resources, absent for built-in kinds"


def test_all_pages_show_the_moment_of_the_first(cluster: Cluster) -> None:
    namespace = filled(cluster)
    _, first = listed(cluster, namespace, limit="2")
    for name in ("bb", "zz"):
        create(cluster, namespace, name)
    cluster.delete("WorkflowTaskResult", namespace, "c")
    cluster.patch("WorkflowTaskResult", namespace, "d", {"message": "new"})
    _, rest = listed(cluster, namespace, **{"continue": first["metadata"]["continue"]})
    assert names(rest) == "cde"
    assert all("message" not in item for item in rest["items"])
    assert rest["metadata"]["resourceVersion"] == first["metadata"]["resourceVersion"]


def test_a_watch_from_the_lists_version_tells_what_its_pages_do_not_show(cluster: Cluster) -> None:
    namespace = filled(cluster)
    _, first = listed(cluster, namespace, limit="4")
    create(cluster, namespace, "new")
    _, rest = listed(cluster, namespace, **{"continue": first["metadata"]["continue"]})
    assert names(rest) == "e"
    watch = cluster.watch("WorkflowTaskResult", namespace, rest["metadata"]["resourceVersion"])
    type_, obj = next(watch)
    watch.close()
    assert (type_, obj["metadata"]["name"]) == ("ADDED", "new")


def test_pages_are_of_what_a_selector_takes_and_then_not_counted(cluster: Cluster) -> None:
    namespace = filled(cluster, 7)
    _, first = listed(cluster, namespace, limit="2", labelSelector="l in (1,2)")
    assert names(first) == "bd"
    assert "remainingItemCount" not in first["metadata"]
    token = first["metadata"]["continue"]
    _, rest = listed(cluster, namespace, limit="2", labelSelector="l in (1,2)", **{"continue": token})
    assert names(rest) == "f"
    assert not rest["metadata"]["continue"]


def test_pages_go_from_namespace_to_namespace(cluster: Cluster) -> None:
    marker = filled(cluster, 0)
    spaces = sorted([marker, cluster.namespace(), cluster.namespace()])
    for namespace in spaces:
        for name in ("x", "y"):
            create(cluster, namespace, name, {"of": marker})
    seen: list[tuple[str, str]] = []
    query = {"limit": "1", "labelSelector": f"of={marker}"}
    while True:
        status, body = listed(cluster, "", **query)
        assert status == 200
        seen += [(item["metadata"]["namespace"], item["metadata"]["name"]) for item in body["items"]]
        if not body["metadata"]["continue"]:
            break
        query["continue"] = body["metadata"]["continue"]
    assert seen == [(namespace, name) for namespace in spaces for name in ("x", "y")]


def test_a_page_as_large_as_the_rest_is_the_last(cluster: Cluster) -> None:
    _, body = listed(cluster, filled(cluster, 2), limit="2")
    assert names(body) == "ab"
    assert not body["metadata"]["continue"]


def test_the_last_page_of_a_built_in_kind_has_no_token_at_all(cluster: Cluster) -> None:
    namespace = cluster.namespace()
    path = cluster.path("ServiceAccount", namespace)
    metadata = cluster.request("GET", path, query={"limit": "5"}).body["metadata"]
    assert metadata.keys() == {"resourceVersion"}


def test_a_list_from_memory_is_whole(cluster: Cluster) -> None:
    namespace = filled(cluster, 3)
    cluster.list("WorkflowTaskResult", namespace)
    _, body = listed(cluster, namespace, limit="1", resourceVersion="0")
    assert not body["metadata"]["continue"]


@pytest.mark.parametrize(
    ("query", "message"),
    [
        ({"limit": "x"}, 'strconv.ParseInt: parsing "x": invalid syntax'),
        ({"continue": "garbage"}, "invalid continue token: continue key is not valid: "),
        ({"resourceVersion": "5"}, "specifying resource version is not allowed when using continue"),
    ],
)
def test_a_query_that_cannot_be_is_400(cluster: Cluster, query: dict[str, str], message: str) -> None:
    namespace = filled(cluster, 2)
    _, first = listed(cluster, namespace, limit="1")
    status, body = listed(cluster, namespace, **{"continue": first["metadata"]["continue"], **query})
    assert (status, body["reason"]) == (400, "BadRequest")
    assert body["message"].startswith(message)


def test_a_bookmark_says_how_far_a_watch_is_and_nothing_else(cluster: Cluster) -> None:
    """The one that ends the initial events comes at once; those without them look the same, but are rare."""
    namespace = filled(cluster, 2)
    query = {
        "watch": "1",
        "timeoutSeconds": "1",
        "allowWatchBookmarks": "true",
        "sendInitialEvents": "true",
        "resourceVersionMatch": "NotOlderThan",
    }
    events = list(cluster.events("WorkflowTaskResult", namespace, query))
    assert [type_ for type_, _ in events] == ["ADDED", "ADDED", "BOOKMARK"]
    bookmark = events[-1][1]
    version = bookmark["metadata"].pop("resourceVersion")
    assert int(version) >= max(int(obj["metadata"]["resourceVersion"]) for _, obj in events[:-1])
    assert bookmark == {
        "kind": "WorkflowTaskResult",
        "apiVersion": API_VERSION,
        "metadata": {"annotations": {"k8s.io/initial-events-end": "true"}},
    }


def test_a_watch_that_may_be_sent_bookmarks_is_a_watch(cluster: Cluster) -> None:
    namespace = filled(cluster, 1)
    query = {"watch": "1", "timeoutSeconds": "1", "allowWatchBookmarks": "true"}
    events = list(cluster.events("WorkflowTaskResult", namespace, query))
    assert [obj["metadata"]["name"] for type_, obj in events if type_ != "BOOKMARK"] == ["a"]
