from tests.manifests.rendering import (
    ACCESS_DIRECT,
    BASE,
    KEEPER,
    OF_THE_KEEPER,
    WEBHOOK,
    environment,
    overlay,
    render,
)
from webhook import settings


def test_nothing_of_the_keepers_is_left_and_only_the_webhook_changes() -> None:
    with_it, without = overlay(ACCESS_DIRECT), render(BASE)
    gone = [document for document in without if document not in with_it]
    of_the_keeper = {
        (d["kind"], d["metadata"]["name"]) for d in without if d["metadata"]["name"] in OF_THE_KEEPER
    }
    assert {(d["kind"], d["metadata"]["name"]) for d in gone} == {*of_the_keeper, ("Deployment", WEBHOOK)}
    assert not [d for d in with_it if d["metadata"]["name"] in OF_THE_KEEPER]
    assert not [s for d in with_it for s in d.get("subjects", ()) if s["name"] == KEEPER]


def test_the_webhook_is_told() -> None:
    variables = environment(overlay(ACCESS_DIRECT), WEBHOOK)
    assert settings.parse([], variables).access == "direct"
    assert settings.parse(["--access=service"], variables).access == "service"
