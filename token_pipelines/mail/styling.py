"""Writes the stylesheet's rules into the ``style`` attributes of a template, once, when it is loaded.

Many mail programs ignore stylesheets. css-inline decides which declarations an element gets, and we write them into the
template's text. Its own output is not used as a template: its HTML parser moves ``{% for %}`` out of tables and breaks
tags inside attributes. Running it on each rendered email would cost 100 µs an email, almost as much as the rendering.
"""

import re
from typing import Final

import css_inline

_JINJA: Final = re.compile(r"{#.*?#}|{%.*?%}|{{.*?}}", re.DOTALL)
_COMMENT: Final = re.compile(r"<!--.*?-->", re.DOTALL)
_IN_A_TAG: Final = r"""(?:[^"'>]|"[^"]*"|'[^']*')*"""
_ELEMENT: Final = re.compile(rf"<([A-Za-z][A-Za-z0-9]*)(?=[\s/>])({_IN_A_TAG})>")
_STYLE: Final = re.compile(r"""\sstyle\s*=\s*("[^"]*"|'[^']*')""", re.IGNORECASE)
_CLASS: Final = re.compile(r"""\sclass\s*=\s*("[^"]*"|'[^']*'|[^\s"'>]*)""", re.IGNORECASE)
_MARK: Final = "data-styled"
_MARKED: Final = re.compile(rf"""<[a-z][a-z0-9]*\s(?={_IN_A_TAG}{_MARK}="(\d+)")({_IN_A_TAG})>""")
_KEPT: Final = re.compile(r"<style>(.*?)</style>", re.DOTALL)
_DECLARED: Final = re.compile(r"(:[^;{}]*?)\s*(?:!important)?\s*(?=[;}])")
_CONTEXT: Final = {"tr": "<table>", "tbody": "<table>", "td": "<table><tr>", "th": "<table><tr>", "li": "<ul>"}
"""What must stand before such an element so that an HTML parser keeps it. A template may begin with one."""


class Stylesheet:
    """One stylesheet: rules to put onto elements, and at-rules, which only a document's head can hold."""

    def __init__(self, css: str) -> None:
        """Read it. Invalid rules are skipped, as browsers do."""
        whole = css_inline.CSSInliner(keep_at_rules=True).inline(f"<style>{css}</style>")
        kept = _KEPT.search(whole)
        self.head: Final = _DECLARED.sub(r"\1 !important", kept[1].strip()) if kept else ""
        """Its at-rules. Each declaration is made ``!important``, to win over the element's own ``style``."""
        self._inliner = css_inline.CSSInliner(
            extra_css=css, inline_style_tags=False, keep_style_tags=True, minify_css=True
        )

    def apply(self, template: str) -> str:
        """Put a ``style`` on each element that a rule selects. Nothing else changes, and no line moves.

        Raises:
            ValueError: an element's class depends on a variable, so its style is unknown before rendering.
        """
        # Tags are replaced by blanks of the same length, so that offsets are the same in both texts.
        plain = _COMMENT.sub(_blank, _JINJA.sub(_blank, template))
        elements = list(_ELEMENT.finditer(plain))
        styles = self._styles(plain, elements)
        pieces, done = [], 0
        for number, element in enumerate(elements):
            _refuse_variable_class(plain, template, element)
            style = styles.get(str(number))
            if not style:
                continue
            own = _STYLE.search(plain, *element.span(2))
            if own is None:
                end = element.end() - (2 if element[2].endswith("/") else 1)
                pieces += [template[done:end], f' style="{style}"']
                done = end
            else:
                pieces += [template[done : own.start(1) + 1], _quoted(style, template[own.start(1)]), ";"]
                done = own.start(1) + 1
        return "".join([*pieces, template[done:]])

    def _styles(self, plain: str, elements: list[re.Match[str]]) -> dict[str, str]:
        """Map the element's number to its declarations, escaped for an attribute."""
        pieces, done = [_CONTEXT.get(elements[0][1].lower(), "") if elements else ""], 0
        for number, element in enumerate(elements):
            own = _STYLE.search(plain, *element.span(2))
            bare = (
                element[2] if own is None else plain[element.start(2) : own.start()] + plain[own.end() : element.end(2)]
            )
            pieces += [plain[done : element.start()], f'<{element[1]} {_MARK}="{number}"{bare}>']
            done = element.end()
        page = self._inliner.inline("".join([*pieces, plain[done:]]))
        styles = {}
        for found in _MARKED.finditer(page):
            style = _STYLE.search(" " + found[2])
            if style is not None:
                styles[found[1]] = style[1][1:-1]
        return styles


def _blank(found: re.Match[str]) -> str:
    return re.sub(r"[^\n]", " ", found[0])


def _quoted(style: str, quote: str) -> str:
    return style if quote == '"' else style.replace("'", "&#39;")


def _refuse_variable_class(plain: str, template: str, element: re.Match[str]) -> None:
    given = _CLASS.search(plain, *element.span(2))
    if given is not None and given[0] != template[given.start() : given.end()]:
        line = template.count("\n", 0, element.start()) + 1
        msg = (
            f"line {line} gives <{element[1]}> a class that depends on a tag; write each class out, with the if around"
        )
        raise ValueError(msg)
