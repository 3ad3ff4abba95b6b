"""Loads a folder of Jinja templates: styles and compiles each, and reports faults with file and line.

Knows which languages there are. Does not know what the variables mean.
"""

from collections.abc import Callable, Iterator, Mapping, MutableMapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import jinja2
import jinja2.meta
import jinja2.nodes
from babel import Locale
from jinja2.loaders import split_template_path
from markupsafe import Markup

from token_pipelines.errors import TemplateError
from token_pipelines.mail import locales
from token_pipelines.mail.styling import Stylesheet
from token_pipelines.mail.wrapping import hanging, paragraph
from token_pipelines.text_files import UnreadableFileError, read_text

PARTS: Final = ("subject.txt", "body.txt", "body.html")
STYLESHEET: Final = "_base/style.css"

_FAULTS: Final = (
    jinja2.TemplateError,
    TypeError,
    ValueError,
    ArithmeticError,
    LookupError,
    AttributeError,
    OSError,
    UnreadableFileError,
)
"""What an operator's template can raise: Jinja's errors, Python's from expressions in the template, and the file's."""


@dataclass(frozen=True, slots=True)
class Language:
    """One notice's templates in one language. ``locale`` is None for the default templates."""

    folder: str
    locale: Locale | None


class Templates:
    """Every ``.txt`` and ``.html`` file below a folder, read once: later changes to the files have no effect."""

    def __init__(self, folder: Path, *, notices: tuple[str, ...], variables: AbstractSet[str]) -> None:
        """Compile them all. ``variables`` are the names that templates may use.

        Raises:
            TemplateError: a required file is missing, one does not parse, or one uses an unknown variable.
        """
        self._folder = folder
        sheet = self._stylesheet()
        self._loader = _StyledLoader(folder, sheet)
        self._environment = _Environment(self._loader)
        self._environment.globals["head_css"] = Markup(sheet.head)  # noqa: S704 -- the operator's own stylesheet
        for notice in notices:
            self._require(notice, "copy it from the templates we ship, or set email.templates")
        self._default = {notice: Language(notice, None) for notice in notices}
        self._languages = {notice: dict(self._translations(notice)) for notice in notices}
        self._compiled: dict[str, jinja2.Template] = {}
        for name in self._environment.list_templates(extensions=["txt", "html"]):
            self._load(name, variables)

    def language(self, notice: str, locale: str | None) -> Language:
        """Give the notice's templates for a user's locale: those for ``de_AT``, else ``de``, else the default."""
        translations = self._languages[notice]
        if translations:
            for candidate in locales.candidates(locale):
                if candidate in translations:
                    return translations[candidate]
        return self._default[notice]

    @property
    def translations(self) -> tuple[str, ...]:
        """The locales for which at least one notice has its own templates."""
        return tuple(sorted({locale for found in self._languages.values() for locale in found}))

    def render(self, name: str, variables: Mapping[str, object]) -> str:
        """Render the named template with these variables.

        Raises:
            TemplateError: it uses something unknown, or fails on these values.
        """
        try:
            return self._compiled[name].render(variables)
        except _FAULTS as error:
            raise self._fault(name, error) from None

    def _stylesheet(self) -> Stylesheet:
        path = self._folder / STYLESHEET
        try:
            return Stylesheet(read_text(path) if path.exists() else "")
        except _FAULTS as error:
            raise self._fault(STYLESHEET, error) from None

    def _require(self, folder: str, cure: str) -> None:
        for part in PARTS:
            if not (self._folder / folder / part).is_file():
                msg = f"{self._folder / folder / part} is missing; {cure}."
                raise TemplateError(msg)

    def _translations(self, notice: str) -> Iterator[tuple[str, Language]]:
        for path in sorted((self._folder / notice).iterdir()):
            if not any((path / part).is_file() for part in PARTS):
                continue
            folder = f"{notice}/{path.name}"
            locale = locales.exact(path.name)
            if locale is None:
                msg = f"{path} is not named after a locale; name it like de or pt_BR, or move it elsewhere."
                raise TemplateError(msg)
            self._require(folder, "a translation needs the subject, the text and the HTML")
            yield locales.candidates(path.name)[0], Language(folder, locale)

    def _load(self, name: str, variables: AbstractSet[str]) -> None:
        path = self._folder / name
        try:
            source, _, _ = self._loader.get_source(self._environment, name)
            tree = self._environment.parse(source, name, str(path))
            template = self._compiled[name] = self._environment.get_template(name)
            template.globals = dict(template.globals)  # a dict instead of a ChainMap, which is slower in each rendering
        except _FAULTS as error:
            raise self._fault(name, error) from None
        # Looks at the syntax tree, so that it also covers branches that no sample renders.
        unknown = jinja2.meta.find_undeclared_variables(tree) - variables - set(self._environment.globals)
        unknown -= set(_defined(tree))
        for node in tree.find_all(jinja2.nodes.Name):
            if node.name in unknown:
                msg = (
                    f"{path} line {node.lineno} uses {node.name}, which is not a variable of emails; "
                    f"use one of {', '.join(sorted(variables))}."
                )
                raise TemplateError(msg)

    def _fault(self, name: str, error: Exception) -> TemplateError:
        file, line = self._folder / name, 0
        if isinstance(error, UnreadableFileError):
            return TemplateError(f"{file} {error}.")
        if isinstance(error, jinja2.TemplateSyntaxError):
            file, line = Path(error.filename or file), error.lineno
        for found, number in _steps(error):
            if Path(found).is_relative_to(self._folder):
                file, line = Path(found), number
        where = f"{file} line {line}" if line else str(file)
        reason = (
            f"needs {error.name}, which is missing" if isinstance(error, jinja2.TemplateNotFound) else f"fails: {error}"
        )
        return TemplateError(f"{where} {reason.rstrip('.')}; fix it, or copy the file from the templates we ship.")


class _Environment(jinja2.Environment):
    """Caches templates by name. Jinja's own lookup, done six times an email, takes a tenth of the rendering time."""

    def __init__(self, loader: jinja2.BaseLoader) -> None:
        super().__init__(
            loader=loader,
            autoescape=_escapes,
            undefined=jinja2.StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
            cache_size=0,
        )
        self.filters.update(paragraph=paragraph, hanging=hanging)
        self._known: dict[str | jinja2.Template, jinja2.Template] = {}

    def get_template(
        self,
        name: str | jinja2.Template,
        parent: str | None = None,
        globals: MutableMapping[str, Any] | None = None,  # noqa: A002 -- Jinja's name
    ) -> jinja2.Template:
        try:
            return self._known[name]
        except KeyError:
            found = self._known[name] = super().get_template(name, parent, globals)
            return found


class _StyledLoader(jinja2.FileSystemLoader):
    """Reads templates, and puts the stylesheet's rules onto the elements of HTML ones."""

    def __init__(self, folder: Path, sheet: Stylesheet) -> None:
        super().__init__(folder)
        self._folder = folder
        self._sheet = sheet

    def get_source(self, environment: jinja2.Environment, template: str) -> tuple[str, str, Callable[[], bool]]:  # noqa: ARG002 -- Jinja's hook
        path = self._folder.joinpath(*split_template_path(template))
        if not path.is_file():
            raise jinja2.TemplateNotFound(template)
        source = read_text(path)
        return self._sheet.apply(source) if template.endswith(".html") else source, str(path), lambda: True


def _escapes(name: str | None) -> bool:
    """Escape everything but ``.txt`` files. Jinja's ``select_autoescape`` would not escape ``body.html.j2``."""
    return name is None or not name.endswith(".txt")


def _defined(tree: jinja2.nodes.Template) -> Iterator[str]:
    """Names that the template defines at its top. Blocks can use them, but Jinja reports them as undeclared there."""
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
    """File and line of each frame of the traceback. Jinja puts those of templates into it."""
    step = error.__traceback__
    while step is not None:
        yield step.tb_frame.f_code.co_filename, step.tb_lineno
        step = step.tb_next
