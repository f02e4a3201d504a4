import pytest
from hypothesis import given
from hypothesis import strategies as st

from argo import tags


def names_of(text):
    return [".".join(name) for tag in tags.find(text) for name in tag.names]


def certain_of(text):
    return [".".join(name) for tag in tags.find(text) for name in tag.certain]


def unknown_in(text):
    return [root for tag in tags.find(text) for root in tag.unknown_roots]


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("plain", []),
        ("{{inputs.parameters.x}}", ["inputs.parameters.x"]),
        ("a-{{ inputs.parameters.x }}-{{workflow.name}}", ["inputs.parameters.x", "workflow.name"]),
        ("}} {{item}} }}", ["item"]),
        ('{"a":{"b":"{{item}}"}}', ["item"]),
        ("{{inputs.parameters.{{item}}}}", ["item"]),
        ("{{a\nb}}", ["a\nb"]),
    ],
)
def test_simple_tags_are_names_between_the_nearest_braces(text, names):
    assert names_of(text) == names


@pytest.mark.parametrize(
    ("program", "names"),
    [
        ("inputs.parameters.x", ["inputs.parameters.x"]),
        ("inputs.parameters['my-x']", ["inputs.parameters.my-x"]),
        ('inputs["parameters"]["x"]', ["inputs.parameters.x"]),
        ("inputs . parameters [ 'x' ]", ["inputs.parameters.x"]),
        ("toJson(inputs.parameters)", ["inputs.parameters"]),
        ("toJson(inputs)", ["inputs"]),
        ("inputs.parameters[workflow.name]", ["inputs.parameters", "workflow.name"]),
        ("sprig.upper(inputs.parameters.x)", ["sprig.upper", "inputs.parameters.x"]),
        ("'input.x' + \"input.y\" + `input.z` + item", ["item"]),
        ("item // input.x", ["item"]),
        ("item /* input.x */", ["item"]),
        ("let input = item; input.x", ["item"]),
        ("jsonpath(item, '$.a').b", ["item"]),
        ("item?.a.b", ["item"]),
        ("asInt(retries) + 1", ["retries"]),
        ("now().Unix()", ["now"]),
        ("not item.a and item.b", ["item.a", "item.b"]),
        ("filter(item, {foo.bar > 1})", []),
        ("filter(item, #.foo.bar > 1)", ["item"]),
        ("'it\\'s ' + item", ["item"]),
        ("'never closed + input.x", []),
        ("item /* never closed input.x", ["item"]),
        ("item // it's\n + inputs.parameters.x", ["item", "inputs.parameters.x"]),
    ],
)
def test_expressions_give_their_member_paths_and_known_words(program, names):
    (tag,) = tags.find("{{=" + program + "}}")
    assert tag.expression
    assert [".".join(name) for name in tag.names] == names


@pytest.mark.parametrize(
    "program",
    [
        "inputs.parameters.x ?? 'none'",
        "'x' in inputs.parameters ? inputs.parameters.x : ''",
        "item == 'a' && inputs.parameters.x == ''",
        "item == 'a' || inputs.parameters.x == ''",
        "item == 'a' and inputs.parameters.x == ''",
        "if item == 'a' { inputs.parameters.x } else { '' }",
    ],
)
def test_a_name_that_may_never_be_evaluated_is_not_certain(program):
    assert certain_of("{{=" + program + "}}") == []


def test_a_conditional_word_in_a_string_makes_nothing_uncertain():
    assert certain_of("{{=inputs.parameters.x + ' or ?'}}") == ["inputs.parameters.x"]


@pytest.mark.parametrize(
    ("text", "unbalanced"),
    [
        ("", False),
        ("{", False),
        ("}}", False),
        ("{{a}}", False),
        ("{{a}", True),
        ("{{a}}{{", True),
        ("{{a}} {{b", True),
        ("{{a{{b}}", False),
        ("{{{a}}}", False),
    ],
)
def test_a_tag_must_be_closed_and_a_lone_close_is_text(text, unbalanced):
    assert tags.is_unbalanced(text) is unbalanced


@pytest.mark.parametrize("root", sorted(tags.ROOTS))
def test_every_root_that_argo_knows_is_known(root):
    assert unknown_in("{{" + root + ".x}} {{=" + root + ".x}}") == []


@pytest.mark.parametrize(
    ("text", "roots"),
    [
        ("{{input.parameters.x}}", ["input"]),
        ("{{}}", [""]),
        ("{{{item}}}", ["{item"]),
        ("{{sprig.upper}}", ["sprig"]),
        ("{{=input.parameters.x ?? ''}}", ["input"]),
        ("{{=sprig.upper(item)}}", []),
        ("{{=somefunction(1)}}", []),
        ("{{=" + "1+" * 20_000 + "input.x}}", []),
        ("{{=input[\x005\x00]}}", []),
    ],
)
def test_unknown_roots(text, roots):
    assert unknown_in(text) == roots


def test_filled_puts_a_value_in_place_of_every_tag():
    assert tags.filled("a-{{item}}-{{=b}}}", "0") == "a-0-0}"
    assert tags.filled("{{a", "0") == "{{a"


def test_a_tag_is_shown_in_one_line_of_bearable_length():
    (tag,) = tags.find("{{=item +\n   item" + " + item" * 100 + "}}")
    assert str(tag).startswith("{{=item + item + item")
    assert len(str(tag)) < 100


@given(st.text(alphabet="{}=ab.'\"`[]?/* \x000\\", max_size=60))
def test_any_text_can_be_read(text):
    found = tags.find(text)
    assert len(found) <= text.count("{{")
    for tag in found:
        assert "}}" not in tag.text
        assert set(tag.certain) <= set(tag.names)
    assert tags.has_tags(tags.filled(text, "")) == tags.is_unbalanced(text) or "{{" not in text
