import json
from collections.abc import Callable
from typing import Any

from argo import layout

Json = dict[str, Any]


def managed(pod: Json) -> list[str]:
    return [place.name for place in layout.read(pod).managed]


def container(pod: Json, name: str) -> Json:
    everything = [*pod["spec"].get("initContainers", []), *pod["spec"]["containers"]]
    return next(c for c in everything if c["name"] == name)


def set_env(target: Json, name: str, value: str) -> None:
    target["env"] = [e for e in target["env"] if e["name"] != name] + [{"name": name, "value": value}]


def unset_env(target: Json, name: str) -> None:
    target["env"] = [e for e in target["env"] if e["name"] != name]


def test_argos_containers_sidecars_and_the_templates_init_containers_are_managed(
    load: Callable[[str], Json],
) -> None:
    assert managed(load("v4.1.2-legacy/sidecars-and-init")) == ["init", "prep", "wait", "main", "db"]


def test_containers_of_a_service_mesh_are_not_managed(pod: Json) -> None:
    pod["spec"]["initContainers"].insert(0, {"name": "istio-init", "image": "istio", "command": ["iptables"]})
    pod["spec"]["initContainers"].append({"name": "linkerd-proxy", "image": "l5d", "restartPolicy": "Always"})
    pod["spec"]["containers"].append({"name": "istio-proxy", "image": "istio"})
    assert managed(pod) == ["init", "wait", "main"]


def test_init_containers_that_the_template_declares_or_a_plugin_needs_are_managed_without_argos_variable(
    load: Callable[[str], Json],
) -> None:
    pod = load("v4.1.2-legacy/sidecars-and-init")
    prep = container(pod, "prep")
    unset_env(prep, "ARGO_CONTAINER_NAME")
    pod["spec"]["initContainers"].append({"name": "init-artifact-mine", "command": ["x"]})
    pod["spec"]["initContainers"].append({"name": "other", "command": ["x"]})
    assert managed(pod) == ["init", "prep", "init-artifact-mine", "wait", "main", "db"]


def test_init_containers_of_the_template_are_told_from_argos_own(load: Callable[[str], Json]) -> None:
    pod = load("v4.1.2-legacy/sidecars-and-init")
    plugin = container(pod, "init") | {"name": "init-artifact-mine"}
    pod["spec"]["initContainers"].append(plugin)
    pod["spec"]["initContainers"].append({"name": "istio-init", "command": ["x"]})
    assert [place.name for place in layout.read(pod).template_inits] == ["prep"]


def test_an_init_container_that_the_template_names_like_a_plugins_is_the_templates(
    load: Callable[[str], Json],
) -> None:
    pod = load("v4.1.2-legacy/sidecars-and-init")
    template = json.loads(layout.read(pod).managed[0].variables["ARGO_TEMPLATE"])
    container(pod, "prep")["name"] = template["initContainers"][0]["name"] = "init-artifact-prep"
    set_env(container(pod, "init"), "ARGO_TEMPLATE", json.dumps(template))
    assert [place.name for place in layout.read(pod).template_inits] == ["init-artifact-prep"]


def test_the_template_is_argos_own_copy_before_that_of_the_templates_init_containers(
    load: Callable[[str], Json],
) -> None:
    pod = load("v4.1.2-legacy/sidecars-and-init")
    pod["spec"]["initContainers"].reverse()
    set_env(container(pod, "prep"), "ARGO_TEMPLATE", json.dumps({"name": "not this one"}))
    template = layout.read(pod).template
    assert template is not None
    assert template["name"] == "step"


def test_the_template_is_found_in_every_layout(load: Callable[[str], Json]) -> None:
    for case in (
        "v3.5.15-legacy/container",
        "v3.5.15-legacy/resource",
        "v3.6.19-legacy/data",
        "v4.1.2-initless/container",
        "v4.1.2-initless/data",
    ):
        template = layout.read(load(case)).template
        assert template is not None, case
        assert template["name"] == "step", case


def test_of_a_variable_given_twice_the_last_counts_as_for_the_kubelet(pod: Json) -> None:
    init = container(pod, "init")
    init["env"].insert(0, {"name": "ARGO_TEMPLATE", "value": "offloaded"})
    assert not layout.read(pod).offloaded


def test_an_offloaded_template_comes_with_the_mount_of_its_configmap(load: Callable[[str], Json]) -> None:
    for case in (
        "v3.6.19-legacy/large-template",
        "v4.1.2-legacy/large-template",
        "v4.1.2-initless/large-template",
    ):
        shape = layout.read(load(case))
        assert shape.offloaded, case
        assert shape.template is None, case
        assert shape.config_mount == {"name": "argo-env-config", "mountPath": "/argo/config"}, case


def test_where_argo_offloads_arguments_alone_their_configmap_is_not_ours(
    load: Callable[[str], Json],
) -> None:
    pod = load("v4.1.2-initless/data")
    mount = {"name": "argo-env-config", "mountPath": "/argo/config"}
    container(pod, "main")["volumeMounts"].append(mount)
    assert layout.read(pod).config_mount is None
    set_env(container(pod, "main"), "ARGO_TEMPLATE", "offloaded")
    assert layout.read(pod).config_mount == mount


def test_a_template_that_is_no_json_object_is_none(pod: Json) -> None:
    for text in ("", "{", "[]", "null"):
        set_env(container(pod, "init"), "ARGO_TEMPLATE", text)
        assert layout.read(pod).template is None, text


def test_the_token_is_the_executors_own_where_it_has_one(load: Callable[[str], Json]) -> None:
    mount = layout.read(load("v4.1.2-legacy/executor-service-account")).token_mount
    assert mount is not None
    assert mount["name"] == "exec-sa-token"


def test_the_token_is_mains_where_there_is_neither_wait_nor_supervisor(load: Callable[[str], Json]) -> None:
    for case in ("v3.5.15-legacy/resource", "v4.1.2-legacy/data", "v4.1.2-initless/data"):
        shape = layout.read(load(case))
        assert shape.auxiliary is None, case
        assert shape.token_mount is not None, case
        assert shape.token_mount["name"].startswith("kube-api-access-"), case


def test_a_mount_is_found_however_its_path_is_written(pod: Json) -> None:
    for mount in container(pod, "wait")["volumeMounts"]:
        mount["mountPath"] += "/"
    assert layout.read(pod).argo_mount == {"name": "var-run-argo", "mountPath": "/var/run/argo/"}


def test_argos_own_binaries_are_mounted_in_the_init_less_layout_alone(load: Callable[[str], Json]) -> None:
    assert layout.read(load("v4.1.2-legacy/container")).argo_bin_mount is None
    mount = layout.read(load("v4.1.2-initless/container")).argo_bin_mount
    assert mount is not None
    assert mount["name"] == "argoexec-bin"


def test_workers_are_the_containers_of_the_template(load: Callable[[str], Json]) -> None:
    pod = load("v4.1.2-legacy/container-set")
    plugin = {"name": "artifact-plugin-x", "command": ["x"], "env": [{"name": "ARGO_CONTAINER_NAME"}]}
    pod["spec"]["containers"].append(plugin)
    shape = layout.read(pod)
    assert shape.workers == ("a", "main")
    assert "artifact-plugin-x" in managed(pod)


def test_an_empty_pod_has_an_empty_layout() -> None:
    shape = layout.read({})
    assert shape.managed == ()
    assert shape.template is None
    assert shape.auxiliary is None
