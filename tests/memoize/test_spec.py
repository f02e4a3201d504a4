import pytest
from hypothesis import given
from hypothesis import strategies as st

from argo.fields import Kind
from memoize import names, spec
from memoize.key import data_key
from memoize.spec import Memo

CACHE = {"configMap": {"name": "results"}}
ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | st.just("{{item}}"),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["key", "cache", "configMap", "name", "maxAge", "x"]), inner, max_size=4
        )
    ),
    max_leaves=8,
)


def told(errors):
    return [(error.field, error.kind) for error in errors]


@pytest.mark.parametrize(
    ("block", "memo"),
    [
        ({"key": "k", "cache": CACHE}, Memo("k", "results")),
        ({"key": "k", "cache": CACHE, "maxAge": ""}, Memo("k", "results")),
        ({"key": "k", "cache": CACHE, "maxAge": None}, Memo("k", "results")),
        ({"key": " any: text\n", "cache": CACHE, "maxAge": "-1h"}, Memo(" any: text\n", "results", "-1h")),
        (
            {
                "key": "{{inputs.parameters.x}}",
                "cache": {"configMap": {"name": "{{workflow.parameters.Cache}}"}},
                "maxAge": "{{workflow.parameters.hours}}h",
            },
            Memo(
                "{{inputs.parameters.x}}", "{{workflow.parameters.Cache}}", "{{workflow.parameters.hours}}h"
            ),
        ),
        (
            {"key": "k", "cache": {"configMap": {"name": "results", "key": "ignored", "optional": True}}},
            Memo("k", "results"),
        ),
    ],
)
def test_a_sound_block_is_a_memo(block, memo):
    assert spec.from_block(block, "memoize") == (memo, [])


@pytest.mark.parametrize(
    ("block", "errors"),
    [
        ("k", [("m", Kind.TYPE_INVALID)]),
        ({}, [("m.key", Kind.REQUIRED), ("m.cache.configMap.name", Kind.REQUIRED)]),
        ({"key": " \t", "cache": CACHE}, [("m.key", Kind.REQUIRED)]),
        ({"key": 42, "cache": CACHE}, [("m.key", Kind.TYPE_INVALID)]),
        ({"key": ["a"], "cache": CACHE}, [("m.key", Kind.TYPE_INVALID)]),
        ({"key": "k", "cache": "results"}, [("m.cache", Kind.TYPE_INVALID)]),
        ({"key": "k", "cache": {"configMap": "results"}}, [("m.cache.configMap", Kind.TYPE_INVALID)]),
        ({"key": "k", "cache": {"configMap": {}}}, [("m.cache.configMap.name", Kind.REQUIRED)]),
        ({"key": "k", "cache": {"configmap": {"name": "results"}}}, [("m.cache.configmap", Kind.UNKNOWN)]),
        (
            {"key": "k", "cache": {"configMap": {"nam": "results"}}},
            [("m.cache.configMap.nam", Kind.UNKNOWN)],
        ),
        ({"key": "k", "cache": {"configMap": {"name": "A"}}}, [("m.cache.configMap.name", Kind.INVALID)]),
        ({"key": "k", "cache": CACHE, "maxAge": 10}, [("m.maxAge", Kind.TYPE_INVALID)]),
        ({"key": "k", "cache": CACHE, "maxAge": "10"}, [("m.maxAge", Kind.INVALID)]),
        ({"key": "k", "cache": CACHE, "max-age": "10s"}, [("m.max-age", Kind.UNKNOWN)]),
        ({"key": "{{a", "cache": CACHE}, [("m.key", Kind.INVALID)]),
        ({"key": "{{input.x}}", "cache": CACHE}, [("m.key", Kind.INVALID)]),
        ({"key": "{{=input.x}}", "cache": CACHE}, [("m.key", Kind.INVALID)]),
        (
            {"key": 1, "cache": {"configMap": {"name": "{{param.x}}"}}, "maxAge": "x", "ttl": 1},
            [
                ("m.ttl", Kind.UNKNOWN),
                ("m.key", Kind.TYPE_INVALID),
                ("m.cache.configMap.name", Kind.INVALID),
                ("m.maxAge", Kind.INVALID),
            ],
        ),
    ],
)
def test_a_block_that_cannot_work_gives_every_error_with_its_field(block, errors):
    memo, found = spec.from_block(block, "m")
    assert memo is None
    assert told(found) == errors


@pytest.mark.parametrize(
    ("block", "message"),
    [
        ({"key": 42, "cache": CACHE}, 'm.key: Invalid value: 42: must be a string: put it in quotes, "42"'),
        (
            {"key": True, "cache": CACHE},
            'm.key: Invalid value: true: must be a string: put it in quotes, "true"',
        ),
        (
            {"key": "k", "cache": CACHE, "maxAge": 10},
            'm.maxAge: Invalid value: 10: must be a string: a number with a unit, in quotes, such as "10s"',
        ),
        ({"key": "k", "cache": CACHE, "max_age": "1h"}, "m.max_age: Unknown field: did you mean maxAge?"),
        (
            {"key": "k", "cache": CACHE, "frequency": "1h"},
            "m.frequency: Unknown field: only key, cache, maxAge are known here",
        ),
        (
            {"key": "{{input.x}}", "cache": CACHE},
            'm.key: Invalid value: "{{input.x}}": {{input.x}} begins with "input", which Argo does not know: '
            "did you mean inputs?",
        ),
    ],
)
def test_an_error_says_what_to_write(block, message):
    _, (error,) = spec.from_block(block, "m")
    assert str(error) == message


def test_annotations_are_the_same_memo_as_a_block():
    annotations = {names.KEY: "k-{{item}}", names.CACHE: "results", names.MAX_AGE: "1h", "other": "x"}
    assert spec.from_annotations(annotations, "metadata") == (Memo("k-{{item}}", "results", "1h"), [])


def test_without_a_key_annotation_there_is_nothing_to_judge():
    assert spec.from_annotations({names.CACHE: "NO NAME", names.MAX_AGE: "x"}, "metadata") == (None, [])


def test_broken_annotations_give_every_error_with_its_field():
    memo, errors = spec.from_annotations({names.KEY: "", names.CACHE: "A", names.MAX_AGE: 5}, "spec.metadata")
    assert memo is None
    assert sorted(told(errors)) == [
        ("spec.metadata.annotations[stepmemo.dev/cache]", Kind.INVALID),
        ("spec.metadata.annotations[stepmemo.dev/key]", Kind.REQUIRED),
        ("spec.metadata.annotations[stepmemo.dev/max-age]", Kind.TYPE_INVALID),
    ]


def test_annotations_need_a_cache():
    _, errors = spec.from_annotations({names.KEY: "k"}, "metadata")
    assert told(errors) == [("metadata.annotations[stepmemo.dev/cache]", Kind.REQUIRED)]


DIGEST = data_key("a b")


def test_a_pod_may_carry_the_digest_in_the_place_of_its_key():
    annotations = {names.KEY_DIGEST: DIGEST, names.CACHE: "results", names.MAX_AGE: "1h"}
    memo, errors = spec.from_pod(annotations, "metadata")
    assert errors == []
    assert memo == Memo("", "results", "1h", digest=DIGEST)
    assert memo.data_key == Memo("a b", "results").data_key
    assert spec.from_annotations(annotations, "metadata") == (None, [])


def test_a_key_that_is_there_counts_whatever_stands_beside_it():
    annotations = {names.KEY: "k", names.KEY_DIGEST: DIGEST, names.CACHE: "results"}
    assert spec.from_pod(annotations, "metadata") == (Memo("k", "results"), [])


def test_a_key_that_was_to_be_computed_is_none():
    """On a Pod: for a template it is what its author asks for."""
    memo, errors = spec.from_pod({names.KEY: "auto", names.CACHE: "results"}, "metadata")
    assert memo is None
    assert told(errors) == [("metadata.annotations[stepmemo.dev/key]", Kind.INVALID)]
    assert spec.from_annotations({names.KEY: "auto", names.CACHE: "results"}, "metadata")[1] == []


@pytest.mark.parametrize("digest", ["", "k", DIGEST + "0", DIGEST.upper(), 7, None])
def test_anything_else_is_no_digest(digest):
    memo, errors = spec.from_pod({names.KEY_DIGEST: digest, names.CACHE: "results"}, "metadata")
    assert memo is None
    assert errors or digest is None


@pytest.mark.parametrize(
    ("name", "sound"),
    [
        ("a", True),
        ("0.a-b.c", True),
        ("a" * 253, True),
        ("a" * 254, False),
        ("", False),
        ("-a", False),
        ("a-", False),
        ("a..b", False),
        ("a.-b", False),
        ("A", False),
        ("a_b", False),
        ("a\n", False),
        ("ä", False),
    ],
)
def test_dns1123_subdomains(name, sound):
    assert spec.is_dns1123_subdomain(name) is sound


@given(ANYTHING)
def test_anything_is_a_memo_or_errors_below_its_path(block):
    memo, errors = spec.from_block(block, "path.to.it")
    assert (memo is None) == bool(errors)
    assert all(error.field.startswith("path.to.it") for error in errors)


@given(ANYTHING)
def test_every_error_names_a_field_of_the_block_or_one_missing_from_it(block):
    _, errors = spec.from_block(block, "memoize")
    for error in errors:
        *parents, last = error.field.split(".")
        holder = {"memoize": block}
        for name in parents:
            # What is required may be missing together with the objects that would hold it.
            holder = (holder or {}).get(name) if error.kind is Kind.REQUIRED else holder[name]
        if error.kind is Kind.REQUIRED:
            assert not str((holder or {}).get(last) or "").strip()
        else:
            found = holder[last]
            assert error.kind is Kind.UNKNOWN or found == error.value or found != found


@given(st.dictionaries(st.sampled_from([names.KEY, names.CACHE, names.MAX_AGE]), ANYTHING))
def test_any_annotations_are_a_memo_or_errors_or_nothing(annotations):
    memo, errors = spec.from_annotations(annotations, "metadata")
    assert (memo is None) == bool(errors) or names.KEY not in annotations
