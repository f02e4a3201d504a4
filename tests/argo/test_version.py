"""What is known of Argo's versions, and how a version is read off a Pod's images."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from argo import version as argo
from argo.version import (
    GUARDS_DECLARED_OUTPUTS,
    TAKES_UPDATES_AT_ONCE,
    Version,
    executor_version,
    image_version,
)


@pytest.mark.parametrize(
    "version",
    [(3, 6, 11), (3, 6, 19), (3, 7, 1), (3, 7, 18), (3, 8, 0), (4, 0, 0), (4, 1, 2), (5, 0, 0)],
)
def test_declared_outputs_are_guarded(version: tuple[int, int, int]) -> None:
    assert GUARDS_DECLARED_OUTPUTS.holds_in(Version(*version))


@pytest.mark.parametrize("version", [(3, 5, 2), (3, 5, 15), (3, 5, 99), (3, 6, 0), (3, 6, 10), (3, 7, 0)])
def test_declared_outputs_are_not_guarded(version: tuple[int, int, int]) -> None:
    assert not GUARDS_DECLARED_OUTPUTS.holds_in(Version(*version))


@pytest.mark.parametrize("version", [(3, 6, 17), (3, 6, 19), (3, 7, 8), (3, 7, 18), (3, 8, 0)])
def test_updates_are_taken_at_once(version: tuple[int, int, int]) -> None:
    assert TAKES_UPDATES_AT_ONCE.holds_in(Version(*version))


@pytest.mark.parametrize(
    "version",
    [(3, 4, 9), (3, 5, 15), (3, 5, 99), (3, 6, 0), (3, 6, 16), (3, 7, 0), (3, 7, 7), (4, 0, 0), (5, 0, 0)],
    ids=str,
)
def test_updates_are_not_taken_at_once_or_may_bring_an_old_copy(version: tuple[int, int, int]) -> None:
    assert not TAKES_UPDATES_AT_ONCE.holds_in(Version(*version))


def test_a_version_that_is_not_known_does_nothing_of_it() -> None:
    assert not any(fact.holds_in(None) for fact in argo.FACTS)


def test_every_row_names_its_versions_in_order_and_its_source() -> None:
    for fact in argo.FACTS:
        assert fact.first == tuple(sorted(fact.first))
        assert fact.until is None or fact.until > fact.first[-1]
        assert fact.source.endswith(".go")


@pytest.mark.parametrize(
    "image",
    ["quay.io/argoproj/argoexec:v3.6.11", "argoexec:3.6.11", "registry.example:5000/mirror/argoexec:v3.6.11"],
)
def test_the_version_is_the_tag_of_the_executors_image(image: str) -> None:
    assert image_version(image) == (3, 6, 11)


@pytest.mark.parametrize(
    "image",
    [
        "",
        "argoexec",
        "quay.io/argoproj/argoexec:latest",
        "quay.io/argoproj/argoexec:v4",
        "quay.io/argoproj/argoexec:v4.1",
        "quay.io/argoproj/argoexec:v4.0.0-rc1",
        "quay.io/argoproj/argoexec:v3.6.11-nonroot",
        "quay.io/argoproj/argoexec@sha256:" + "0" * 64,
        "quay.io/argoproj/argoexec:v4.1.2@sha256:" + "0" * 64,
        "registry.example:5000/argoexec",
        "registry.example/argo-workflow-exec:3.6.11",
        "registry.example/myargoexec:v4.1.2",
        "registry.example/argoexec:2026.1.5",
        "registry.example/argoexec:v٤.1.2",
        "argoexec:v4.1.2\n",
    ],
)
def test_a_tag_that_says_no_version_of_argo_is_not_guessed_at(image: str) -> None:
    assert image_version(image) is None


def test_images_that_disagree_count_as_the_oldest_and_one_that_says_nothing_as_all() -> None:
    assert executor_version(["argoexec:v4.1.2", "argoexec:v3.6.1"]) == (3, 6, 1)
    assert executor_version(["argoexec:v4.1.2", "argoexec:latest"]) is None
    assert executor_version([]) is None


@given(st.text())
def test_any_image_can_be_asked(image: str) -> None:
    assert image_version(image) is None or image_version(image) == executor_version([image])
