"""Where artifacts lie, for every driver of Argo."""

import pytest

from argo.artifacts import NoLocationError, located, repository

S3 = {"endpoint": "minio:9000", "bucket": "b", "accessKeySecret": {"name": "s", "key": "k"}}
AUTH = {"usernameSecret": {"name": "s", "key": "k"}}

ARCHIVES = [
    ("s3", S3, "key", "wf/pod"),
    ("gcs", {"bucket": "b"}, "key", "wf/pod"),
    ("oss", {"endpoint": "e", "bucket": "b"}, "key", "wf/pod"),
    ("azure", {"endpoint": "https://a", "container": "c"}, "blob", "wf/pod"),
    ("hdfs", {"addresses": ["h:1"], "hdfsUser": "u"}, "path", "/wf/pod"),
    ("plugin", {"name": "p", "configuration": "c"}, "key", "wf/pod"),
]


@pytest.mark.parametrize(("driver", "base", "field", "own"), ARCHIVES)
def test_a_reported_key_gets_the_rest_from_the_archive_location(
    driver: str, base: dict[str, object], field: str, own: str
):
    archive = repository({"archiveLogs": True, driver: {**base, field: own}})
    assert archive == {driver: base}
    reported = {"name": "res", "path": "/res", driver: {field: f"{own}/res.tgz"}}
    assert located(reported, archive) == {
        "name": "res",
        "path": "/res",
        driver: {**base, field: f"{own}/res.tgz"},
    }


def test_an_artifactory_key_is_the_path_of_its_url():
    archive = repository({"artifactory": {"url": "https://host:1/repo/wf/pod", **AUTH}})
    assert archive == {"artifactory": {"url": "https://host:1", **AUTH}}
    reported = {"name": "res", "artifactory": {"url": "/repo/wf/pod/a%20b.tgz"}}
    assert located(reported, archive)["artifactory"] == {
        "url": "https://host:1/repo/wf/pod/a%20b.tgz",
        **AUTH,
    }


def test_the_archive_locations_driver_takes_the_place_of_the_reported_one():
    archive = repository({"gcs": {"bucket": "b", "key": "x"}})
    assert located({"name": "res", "s3": {"key": "k"}}, archive) == {
        "name": "res",
        "gcs": {"bucket": "b", "key": "k"},
    }


@pytest.mark.parametrize(
    "location",
    [
        {"s3": {**S3, "key": "k"}},
        {"gcs": {"bucket": "b", "key": "k"}},
        {"oss": {"endpoint": "e", "bucket": "b", "key": "k"}},
        {"azure": {"endpoint": "e", "container": "c", "blob": "k"}},
        {"hdfs": {"addresses": ["h:1"], "path": "/p"}},
        {"artifactory": {"url": "https://host/p", **AUTH}},
        {"http": {"url": "https://host/p"}},
        {"git": {"repo": "https://host/r.git"}},
        {"raw": {"data": ""}},
        {"plugin": {"name": "p", "configuration": "c", "key": "k"}},
    ],
    ids=lambda location: next(iter(location)),
)
def test_a_full_location_stays_as_it_is(location: dict[str, object]):
    archive = {"s3": {"endpoint": "other", "bucket": "other"}}
    assert located({"name": "res", **location}, archive) == {"name": "res", **location}


@pytest.mark.parametrize(
    ("artifact", "archive"),
    [
        ({}, {"s3": S3}),
        ({"s3": None}, {"s3": S3}),
        ({"s3": {}}, {"s3": S3}),
        ({"s3": {"bucket": "b"}}, {"s3": S3}),
        ({"git": {}}, {"s3": S3}),
        ({"s3": {"key": "k"}}, None),
        ({"s3": {"key": "k"}}, {"s3": {"bucket": "b"}}),
        ({"artifactory": {"url": "http://[::1"}}, {"artifactory": {"url": "https://h"}}),
    ],
)
def test_an_artifact_that_nobody_could_find_again_is_an_error(
    artifact: dict[str, object], archive: dict[str, object] | None
):
    with pytest.raises(NoLocationError):
        located({"name": "res", **artifact}, archive)


@pytest.mark.parametrize(
    "archive",
    [
        None,
        {},
        {"archiveLogs": True},
        {"raw": {"data": "x"}},
        "x",
        {"s3": None},
        {"artifactory": {"url": "http://["}},
        {"http": {"url": "http://[::1"}},
    ],
)
def test_an_archive_location_that_takes_no_keys_is_none(archive: object):
    assert repository(archive) is None
