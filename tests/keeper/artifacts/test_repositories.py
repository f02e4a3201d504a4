import json
from typing import Any

import pytest

from keeper.artifacts.repositories import MOST, ArtifactLocation, ConfigError, Repositories, is_plain, parse

S3 = {"endpoint": "minio.argo:9000", "bucket": "b"}
AZURE = {"endpoint": "https://account.blob.core.windows.net", "container": "c"}


def file(**fields: Any) -> bytes:
    return json.dumps({"repositories": [{"name": "main", **fields}]}).encode()


def refusal(text: bytes) -> str:
    with pytest.raises(ConfigError) as caught:
        parse(text)
    return str(caught.value)


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"s3": {**S3, "accessKeySecret": {}}}, "unknown field `accessKeySecret` - at `repositories[0].s3`"),
        ({"s3": {**S3, "bucket": 3}}, "Expected `str`, got `int` - at `repositories[0].s3.bucket`"),
        ({"s3": {"bucket": "b"}}, "missing required field `endpoint` - at `repositories[0].s3`"),
        ({"s3": {**S3, "bucket": ""}}, "repositories[0].s3.bucket: must be the name of a bucket"),
        ({"s3": {**S3, "endpoint": "http://minio"}}, 's3.endpoint: must be like "minio.argo:9000"'),
        ({"s3": {**S3, "accessKeyFile": "a"}}, "s3.secretKeyFile: must be given where accessKeyFile is"),
        ({"s3": {**S3, "secretKeyFile": "a"}}, "s3.accessKeyFile: must be given where secretKeyFile is"),
        (
            {"s3": {**S3, "useSDKCreds": True, "accessKeyFile": "a", "secretKeyFile": "b"}},
            "s3.useSDKCreds: does not go with accessKeyFile",
        ),
        ({"gcs": {"bucket": ""}}, "gcs.bucket: must be the name of a bucket"),
        ({"gcs": {"bucket": "b", "endpoint": "storage"}}, "gcs.endpoint: must be like"),
        (
            {"gcs": {"bucket": "b", "useSDKCreds": True, "serviceAccountKeyFile": "a"}},
            "gcs.useSDKCreds: does not go with serviceAccountKeyFile",
        ),
        ({"azure": {**AZURE, "endpoint": "account"}}, "azure.endpoint: must be like"),
        ({"azure": {**AZURE, "endpoint": "http://localhost:1"}}, "azure.endpoint: must name the account"),
        ({"azure": {**AZURE, "container": ""}}, "azure.container: must be the name of a container"),
        ({"http": {"url": "https://user:password@host/"}}, "http.url: must be like"),
        ({"http": {"url": "https://host/?a=b"}}, "http.url: must be like"),
        ({"http": {"url": "file:///etc"}}, "http.url: must be like"),
        ({"http": {"url": "https://host", "usernameFile": "u"}}, "http.passwordFile: must be given"),
        ({}, "repositories[0].s3: exactly one of s3, gcs, azure and http must be given"),
        ({"s3": S3, "azure": AZURE}, "exactly one of s3, gcs, azure and http must be given"),
        ({"s3": S3, "name": "a b"}, "repositories[0].name: must be letters"),
        ({"s3": S3, "changed": "run"}, "repositories[0].changed: must be miss or serve"),
    ],
)
def test_what_is_wrong_with_a_repository_names_the_field_and_what_to_write(
    fields: dict[str, Any], said: str
) -> None:
    assert said in refusal(file(**fields))


def test_a_text_that_is_no_yaml_is_told_by_its_line_alone() -> None:
    assert refusal(b"repositories:\n- s3: {secretKey: hunter2") == "it is no YAML, line 2"


@pytest.mark.slow
@pytest.mark.parametrize(
    "text",
    [b"!!int ''", b"!!bool hunter2", b"!!timestamp hunter2", b"[" * 10_000],
    ids=["int", "bool", "timestamp", "deep"],
)
def test_whatever_the_reader_of_yaml_raises_is_told_as_such(text: bytes) -> None:
    assert refusal(text).startswith("it is no YAML")


def test_no_two_are_of_one_name_or_one_place() -> None:
    text = "repositories: [{{name: a, s3: {0}}}, {{name: {1}, s3: {2}}}]"
    assert "[1].name: is the same" in refusal(text.format(S3, "a", {**S3, "bucket": "c"}).encode())
    other = {**S3, "endpoint": "MINIO.argo:9000"}
    assert "[1].name: is the same repository as a" in refusal(text.format(S3, "b", other).encode())


def test_a_file_holds_so_many_repositories_at_most() -> None:
    one = {"name": "a", "s3": S3}
    assert "repositories: must be 100 at most" in refusal(
        json.dumps({"repositories": [one] * (MOST + 1)}).encode()
    )


def test_an_empty_file_names_none() -> None:
    assert parse(b"") == parse(b"repositories: []") == ()


REPOSITORIES = Repositories(
    parse(
        b"""
repositories:
- {name: minio, s3: {endpoint: "minio.argo:9000", bucket: b}}
- {name: ours, namespaces: [ours], s3: {endpoint: "minio.argo:9000", bucket: ours}}
- {name: google, gcs: {bucket: b}}
- {name: microsoft, azure: {endpoint: "https://account.blob.core.windows.net/", container: c}}
- {name: web, http: {url: "https://files.example/argo"}}
- {name: deeper, http: {url: "https://files.example/argo/deeper/"}}
"""
    )
)
MINIO = {"endpoint": "minio.argo:9000", "bucket": "b", "key": "a/b.tgz"}


@pytest.mark.parametrize(
    ("artifact", "name", "key"),
    [
        ({"s3": MINIO}, "minio", "a/b.tgz"),
        ({"s3": {**MINIO, "endpoint": "Minio.argo:9000"}}, "minio", "a/b.tgz"),
        ({"s3": {**MINIO, "insecure": True, "accessKeySecret": {"name": "s"}}}, "minio", "a/b.tgz"),
        ({"gcs": {"bucket": "b", "key": "k"}}, "google", "k"),
        (
            {
                "azure": {
                    "endpoint": "https://account.blob.core.windows.net",
                    "container": "c",
                    "blob": "k",
                }
            },
            "microsoft",
            "k",
        ),
        ({"http": {"url": "https://files.example/argo/k"}}, "web", "https://files.example/argo/k"),
        ({"artifactory": {"url": "https://files.example/argo/k"}}, "web", "https://files.example/argo/k"),
        ({"http": {"url": "https://files.example/argo/deeper/k"}}, "deeper", None),
    ],
)
def test_an_artifact_lies_in_the_repository_that_is_configured_for_its_place(
    artifact: dict[str, Any], name: str, key: str | None
) -> None:
    place = REPOSITORIES.find("any", artifact)
    assert isinstance(place, ArtifactLocation)
    assert place.repository.name == name
    assert key in (None, place.key)


@pytest.mark.parametrize(
    "artifact",
    [
        {"s3": {**MINIO, "endpoint": "169.254.169.254"}},
        {"s3": {**MINIO, "endpoint": "minio.argo:9000@evil.example"}},
        {"s3": {**MINIO, "endpoint": ["minio.argo:9000"]}},
        {"s3": {**MINIO, "bucket": "other"}},
        {"gcs": {"bucket": "other", "key": "k"}},
        {"oss": {"endpoint": "minio.argo:9000", "bucket": "b", "key": "k"}},
        {"hdfs": {"addresses": ["evil"], "path": "/k"}},
        {"git": {"repo": "https://files.example/argo/k"}},
        {"http": {"url": "https://files.example.evil/argo/k"}},
        {"http": {"url": "https://files.example/argo@evil/k"}},
        {"http": {"url": "https://files.example/argonaut"}},
        {"http": {"url": "http://files.example/argo/k"}},
        {"http": {"url": "https://files.example/argo/../admin"}},
        {"http": {"url": "https://files.example/argo/%2e%2e/admin"}},
        {"http": {"url": "https://files.example/argo/..\\admin"}},
        {"http": {"url": "https://files.example/argo/k?delete=all"}},
        {"http": {"url": "https://files.example/argo/k#x"}},
        {"http": {"url": "https://files.example/argo/a%0d%0aHost: evil"}},
        {"http": {"url": "https://[/argo/k"}},
    ],
    ids=str,
)
def test_what_lies_anywhere_else_is_asked_of_nobody(artifact: dict[str, Any]) -> None:
    assert str(REPOSITORIES.find("any", artifact)).startswith("no repository is configured for where it lies")


def test_a_repository_of_some_namespaces_is_not_looked_into_for_others() -> None:
    artifact = {"s3": {**MINIO, "bucket": "ours"}}
    assert isinstance(REPOSITORIES.find("ours", artifact), ArtifactLocation)
    assert REPOSITORIES.find("theirs", artifact) == "repository ours is not for this Namespace"


@pytest.mark.parametrize("artifact", [{"name": "a"}, {"raw": {"data": "x"}}, {"s3": None}])
def test_what_lies_nowhere_is_not_looked_for(artifact: dict[str, Any]) -> None:
    assert REPOSITORIES.find("any", artifact) is None


@pytest.mark.parametrize("key", ["", "/a", "a/", "a//b", "a/../b", "./a", "a\nb", "a" * 1025])
def test_a_key_that_a_client_would_make_another_one_of_is_not_asked_for(key: str) -> None:
    assert not is_plain(key)
    found = REPOSITORIES.find("any", {"s3": {**MINIO, "key": key}})
    assert found == "its key in repository minio is one that cannot be asked for"
