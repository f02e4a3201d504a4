import io
import json
import sys

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from cli import documents
from cli.documents import UnreadableDocument

JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=10,
)


@pytest.mark.parametrize(
    ("scalar", "value"),
    [
        *[(word, True) for word in ("y", "Y", "yes", "on", "true", "TRUE")],
        *[(word, False) for word in ("n", "no", "off", "False")],
        *[(word, None) for word in ("", "~", "null")],
        *[("1_000", 1000), ("017", 15), ("0o17", 15), ("0x1F", 31), ("0b11", 3), ("-0b11", -3), ("+1", 1)],
        *[
            ("1e3", 1000.0),
            ("12e5", 1200000.0),
            (".5", 0.5),
            ("1.", 1.0),
            ("08", 8.0),
            ("-.inf", float("-inf")),
        ],
        *[(text, text) for text in ("12:30", "1:30:00", "2024-01-01", "=", "1e", "0x", "_1", "yEs", "1.2.3")],
        *[("-_1", -1), ("1e_3", 1000.0), ("0o_", "0o_"), ("1e999", "1e999"), ("<<", "<<")],
        *[('"1e3"', "1e3"), ("'yes'", "yes")],
    ],
)
def test_plain_scalars_are_what_kubectl_takes_them_for(scalar, value):
    (found,) = documents.parse(f"a: {scalar}\n")
    assert found == {"a": value}
    assert type(found["a"]) is type(value)


@pytest.mark.parametrize(
    "text", ["1e3", "12e5", "0o17", "y", "12:30", "2024-01-01", "on", "", "=", "<<", "08", "1_0", "-_8"]
)
def test_text_that_some_reader_takes_for_something_else_is_quoted(text):
    written = documents.dump([{"a": text, text: 1}], "yaml")
    assert list(documents.parse(written)) == [{"a": text, text: 1}]
    assert yaml.safe_load(written) == {"a": text, text: 1}


def test_lines_are_written_as_lines_and_nothing_is_folded():
    written = documents.dump([{"source": "echo a\necho b\n", "key": "word " * 60}], "yaml")
    assert "source: |\n  echo a\n  echo b\n" in written
    assert len(written.splitlines()) == 4


def test_fields_keep_their_order_and_text_its_letters():
    assert documents.dump([{"b": "ä", "a": [1]}, {}], "yaml") == "b: ä\na:\n- 1\n---\n{}\n"
    assert documents.dump([{"b": "ä"}], "json") == '{\n  "b": "ä"\n}\n'


def test_documents_are_cut_at_their_lines_and_empty_ones_left_out():
    text = "# nothing\n---\na: 1\n--- # two\nb: |\n  ---\n---\n---\n- c\n"
    assert list(documents.parse(text)) == [{"a": 1}, {"b": "---\n"}, ["c"]]


def test_a_broken_document_hides_no_other_and_names_its_line():
    first, broken, last = documents.parse("a: 1\n\n\n\n---\nb: 2\nc: d: e\n---\nd: 3\n")
    assert (first, last) == ({"a": 1}, {"d": 3})
    assert isinstance(broken, UnreadableDocument)
    assert broken.why.startswith("line 7: ")


@pytest.mark.parametrize(
    "text", ["a: [", "a: !Ref b", "a: b: c", "\tb: 1", "a: &x [*x]", "a: *x", "[" * 5000]
)
def test_what_cannot_be_read_is_said_so(text):
    (found,) = documents.parse(text)
    assert isinstance(found, UnreadableDocument)


def test_json_may_be_indented_with_tabs():
    assert list(documents.parse('{\n\t"a": [1e3]\n}\n')) == [{"a": [1000.0]}]


def test_merge_keys_are_merged():
    assert list(documents.parse("a: &x {b: 1, c: 1}\nd: {<<: *x, c: 2}\n")) == [
        {"a": {"b": 1, "c": 1}, "d": {"b": 1, "c": 2}}
    ]


def test_what_an_alias_repeats_is_not_shared():
    (found,) = documents.parse("a: &x {b: 1}\nc: *x\n")
    found["a"]["b"] = 2
    assert found["c"] == {"b": 1}
    assert "&" not in documents.dump([{"a": (shared := {"b": 1}), "c": shared}], "yaml")


def test_lists_are_taken_apart_at_any_depth():
    inner = {"kind": "WorkflowList", "items": [{"kind": "Workflow"}]}
    assert list(documents.objects({"kind": "List", "items": [inner, {"kind": "Pod"}]})) == [
        {"kind": "Workflow"},
        {"kind": "Pod"},
    ]
    assert list(documents.objects({"kind": "AllowList"})) == [{"kind": "AllowList"}]
    assert list(documents.objects(["kind"])) == [["kind"]]


def test_reading_says_why_it_cannot(tmp_path):
    (tmp_path / "latin").write_bytes(b"a: \xe4")
    assert documents.read(str(tmp_path / "latin")) == UnreadableDocument("is not UTF-8 at byte 3")
    assert documents.read(str(tmp_path / "none")) == UnreadableDocument("No such file or directory")
    assert documents.read(str(tmp_path)) == UnreadableDocument("Is a directory")


def test_a_byte_order_mark_is_no_text(tmp_path):
    (tmp_path / "bom").write_bytes(b"\xef\xbb\xbfa: 1")
    assert documents.read(str(tmp_path / "bom")) == "a: 1"


def test_standard_input_is_a_dash(monkeypatch):
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"a: 1")))
    assert documents.read("-") == "a: 1"


@given(JSON, st.sampled_from(["yaml", "json"]))
def test_what_is_written_is_read_back(value, form):
    document = {"value": value}
    assert list(documents.parse(documents.dump([document], form))) == [json.loads(json.dumps(document))]


@pytest.mark.parametrize(("name", "text"), [("1", "1"), ("on", "true"), ("~", None), ("[1]", None)])
def test_the_name_of_a_field_is_text_as_kubectl_has_it(name: str, text: str | None):
    (found,) = documents.parse(f"a: {{{name}: x, b: z}}")
    assert isinstance(found, UnreadableDocument) if text is None else found == {"a": {text: "x", "b": "z"}}


@pytest.mark.parametrize("value", ["!!binary aGk=", "!!timestamp 2020-01-01", "!!set {x: }"])
def test_a_value_that_json_does_not_have_is_told(value: str):
    (found,) = documents.parse(f"a: {value}")
    assert isinstance(found, UnreadableDocument)
    assert "which JSON does not have" in found.why


def test_aliases_that_repeat_without_end_are_told():
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]" for i in range(1, 10)]
    (found,) = documents.parse("\n".join(lines))
    assert found == UnreadableDocument("its aliases repeat too much")
    (items,) = documents.parse(str(list(range(20_000))).replace("[", "- [", 1))
    assert items == [list(range(20_000))]
