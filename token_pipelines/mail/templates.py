"""A folder of Jinja templates, compiled at once; whatever is wrong in one becomes a sentence with its file and line.

Does not know what the variables mean.
"""

import textwrap
from collections.abc import Iterator, Mapping
from collections.abc import Set as AbstractSet
from pathlib import Path
from typing import Final

import jinja2
import jinja2.meta
import jinja2.nodes

from token_pipelines.errors import TemplateError

TEXT_WIDTH: Final = 72

_FAULTS: Final = (jinja2.TemplateError, TypeError, ValueError, ArithmeticError, LookupError, AttributeError, OSError)
"""What an operator's template can raise: Jinja's own errors, and Python's from the expressions in it."""


class Templates:
    """Every ``.txt`` and ``.html`` below a folder. Later changes to the files are not seen."""

    def __init__(self, folder: Path, *, required: tuple[str, ...], variables: AbstractSet[str]) -> None:
        """Compile them all; ``variables`` are the names that rendering will offer.

        Raises:
            TemplateError: a required one is missing, one does not parse, or one names an unknown variable.
        """
        self._folder = folder
        self._environment = jinja2.Environment(
            loader=jinja2.FileSystemLoader(folder),
            autoescape=_escapes,  # noqa: S701 -- the rule knows select_autoescape only
            undefined=jinja2.StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
            auto_reload=False,
            cache_size=-1,
        )
        self._environment.filters["paragraph"] = _paragraph
        self._environment.filters["hanging"] = _hanging
        for name in required:
            if not (folder / name).is_file():
                msg = f"{folder / name} is missing; copy it from the templates we ship, or set email.templates."
                raise TemplateError(msg)
        for name in self._environment.list_templates(extensions=["txt", "html"]):
            self._load(name, variables)

    def render(self, name: str, variables: Mapping[str, object]) -> str:
        """The named template with these variables.

        Raises:
            TemplateError: it names something unknown, or fails on these values.
        """
        try:
            return self._environment.get_template(name).render(variables)
        except _FAULTS as error:
            raise self._fault(name, error) from None

    def _load(self, name: str, variables: AbstractSet[str]) -> None:
        path = self._folder / name
        try:
            tree = self._environment.parse(path.read_text(encoding="utf-8"), name, str(path))
            self._environment.get_template(name)
        except _FAULTS as error:
            raise self._fault(name, error) from None
        # In the tree, not by rendering: this sees the branches that no sample walks through.
        unknown = jinja2.meta.find_undeclared_variables(tree) - variables - set(self._environment.globals)
        unknown -= set(_defined(tree))
        for node in tree.find_all(jinja2.nodes.Name):
            if node.name in unknown:
                msg = (
                    f"{path} line {node.lineno} names {node.name}, which no email knows; "
                    f"use one of {', '.join(sorted(variables))}."
                )
                raise TemplateError(msg)

    def _fault(self, name: str, error: Exception) -> TemplateError:
        file, line = self._folder / name, 0
        if isinstance(error, jinja2.TemplateSyntaxError):
            file, line = Path(error.filename or file), error.lineno
        for found, number in _steps(error):
            if Path(found).is_relative_to(self._folder):
                file, line = Path(found), number
        where = f"{file} line {line}" if line else str(file)
        reason = (
            f"needs {error.name}, which is missing" if isinstance(error, jinja2.TemplateNotFound) else f"fails: {error}"
        )
        return TemplateError(f"{where} {reason.rstrip('.')}; mend it, or copy the file from the templates we ship.")


def _escapes(name: str | None) -> bool:
    """Off for ``.txt`` and on for everything else: ``select_autoescape`` would leave ``body.html.j2`` open."""
    return name is None or not name.endswith(".txt")


def _defined(tree: jinja2.nodes.Template) -> Iterator[str]:
    """Names that the template gives itself at its top; blocks see them, though Jinja's finder says otherwise."""
    for imported in tree.find_all(jinja2.nodes.FromImport):
        yield from (name if isinstance(name, str) else name[1] for name in imported.names)
    for module in tree.find_all(jinja2.nodes.Import):
        yield module.target
    for macro in tree.find_all(jinja2.nodes.Macro):
        yield macro.name
    for name in tree.find_all(jinja2.nodes.Name):
        if name.ctx == "store":
            yield name.name


def _steps(error: Exception) -> Iterator[tuple[str, int]]:
    """File and line of each step to the error; Jinja writes those of templates into the traceback."""
    step = error.__traceback__
    while step is not None:
        yield step.tb_frame.f_code.co_filename, step.tb_lineno
        step = step.tb_next


def _paragraph(text: str) -> str:
    """One paragraph, wrapped; links and long words stay whole."""
    return _wrap(text, TEXT_WIDTH) + "\n"


def _hanging(text: str, columns: int) -> str:
    """The same, for text that begins at that column: further lines begin there too."""
    return _wrap(text, TEXT_WIDTH - columns).replace("\n", "\n" + " " * columns)


def _wrap(text: str, width: int) -> str:
    return textwrap.fill(" ".join(text.split()), width, break_long_words=False, break_on_hyphens=False)
