"""A stylesheet goes onto the elements of a template, and the template stays what it was."""

import re

import pytest

from token_pipelines.mail.styling import Stylesheet

SHEET = Stylesheet("""
/* a comment */
p { margin: 0 0 16px; }
.card td { color: #123456; }
.red { color: red; }
a.button { font-family: "Segoe UI", sans-serif; }
tr { height: 1px; }
@media (max-width: 480px) { .red { padding: 0; color: blue !important } }
@media (prefers-color-scheme: dark) { a:hover { color: white; } }
""")


@pytest.mark.parametrize(
    ("template", "styled"),
    [
        ("<p>x</p>", '<p style="margin:0 0 16px">x</p>'),
        ('<p class="red">x</p>', '<p class="red" style="margin:0 0 16px;color:red">x</p>'),
        ("<P Class=red>x</P>", '<P Class=red style="margin:0 0 16px;color:red">x</P>'),
        ("<b>x</b>", "<b>x</b>"),
        ("", ""),
        ("no element < here {{ x }}", "no element < here {{ x }}"),
        ('<hr class="red"/>', '<hr class="red" style="color:red"/>'),
        # What the element itself says comes last, and so wins.
        ('<p style="margin: 1px">x</p>', '<p style="margin:0 0 16px;margin: 1px">x</p>'),
        ('<p style="width: {{ w }}px">x</p>', '<p style="margin:0 0 16px;width: {{ w }}px">x</p>'),
        (
            """<a class="button" href="x">y</a>""",
            """<a class="button" href="x" style="font-family:'Segoe UI', sans-serif">y</a>""",
        ),
    ],
)
def test_apply_adds_styles_and_nothing_else(template: str, styled: str) -> None:
    assert SHEET.apply(template) == styled


def test_apply_leaves_loops_in_their_table() -> None:
    """css-inline's own output has the loop before the table, where an HTML parser puts stray text."""
    template = '<table class="card">{% for x in xs %}<tr><td>{{ x }}</td></tr>{% endfor %}</table>'
    assert SHEET.apply(template) == (
        '<table class="card">{% for x in xs %}<tr style="height:1px"><td style="color:#123456">{{ x }}</td></tr>'
        "{% endfor %}</table>"
    )


@pytest.mark.parametrize(
    "tag",
    [
        '<p title="{{ \'a" > b\' }}" class="red">',
        '<p {% if x > 1 %}title="1"{% endif %} class="red">',
        '<p title="{% if a %}x{% else %}y{% endif %}" class="red">',
        '<p\n  {# > #}\n  class="red">',
    ],
)
def test_apply_leaves_tags_inside_elements(tag: str) -> None:
    assert SHEET.apply(f"{tag}x</p>") == f'{tag[:-1]} style="margin:0 0 16px;color:red">x</p>'


@pytest.mark.parametrize("tag", ["tr", "td", "th", "tbody", "li"])
def test_apply_template_that_begins_inside_a_table(tag: str) -> None:
    """A parser drops such an element where it stands alone."""
    assert f'<{tag} class="red" style=' in SHEET.apply(f'<{tag} class="red">x</{tag}>')


def test_apply_moves_no_line() -> None:
    """Jinja's line numbers are the file's."""
    template = "<p\n>\n{% if\n x %}\n<b class='red'>\n</b>{# \n #}</p>\n"
    assert SHEET.apply(template).count("\n") == template.count("\n")
    assert re.sub(r' style="[^"]*"', "", SHEET.apply(template)) == template


def test_apply_passes_over_comments() -> None:
    template = "<!--[if mso]><table><tr><td class='red'><![endif]--><b>x</b>"
    assert SHEET.apply(template) == template


@pytest.mark.parametrize("given", ['class="{{ tone }}"', "class='a {% if b %}red{% endif %}'"])
def test_apply_class_from_a_variable(given: str) -> None:
    """It would have no style, and nobody would know why."""
    with pytest.raises(ValueError, match=r"line 2 gives <td> a class that depends on a tag; write each class out"):
        SHEET.apply(f"<p></p>\n<td {given}></td>")


def test_head_holds_what_elements_cannot() -> None:
    """Media queries, whose declarations must win over the elements' own."""
    assert " ".join(SHEET.head.split()) == (
        "@media (max-width: 480px) { .red { padding: 0 !important; color: blue !important} } "
        "@media (prefers-color-scheme: dark) { a:hover { color: white !important; } }"
    )


def test_stylesheet_empty() -> None:
    sheet = Stylesheet("")
    assert (sheet.head, sheet.apply("<p class='x'>y</p>")) == ("", "<p class='x'>y</p>")


def test_stylesheet_with_an_unreadable_rule() -> None:
    """The rules before it hold, as in a browser."""
    assert Stylesheet("b { color: red } } nonsense {{").apply("<b>x</b>") == '<b style="color:red">x</b>'
