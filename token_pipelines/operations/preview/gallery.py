"""Writes the samples as pages that open from disk: in light and dark mode, at phone and desktop width, with the text.

Each email is shown in a sandboxed frame, and nothing is fetched. The ``color-scheme`` of a frame decides what
``prefers-color-scheme`` matches in the email inside, whatever the machine's setting is.
"""

from collections.abc import Sequence
from datetime import datetime
from html import escape
from itertools import groupby
from pathlib import Path
from typing import Final

from token_pipelines.config import Config
from token_pipelines.errors import ConfigError
from token_pipelines.mail.rendering import Renderer
from token_pipelines.operations.preview.samples import Sample, render_all

FOLDER: Final = "preview"
PHONE: Final = 390  # px
DESKTOP: Final = 900
_KINDS: Final = {
    "one": "One token",
    "five": "Five tokens",
    "many": "Many tokens",
    "mixed": "Several tiers at once",
    "crowded": "Several tiers at once, more tokens than are listed",
    "bare": "Nothing known but the expiry",
    "hostile": "Hostile names",
    "long": "Long names",
    "rtl": "Right-to-left names",
}

_PAGE: Final = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy"
 content="default-src 'none'; style-src 'unsafe-inline'; frame-src 'self'">
<title>{title}</title>
<style>
:root {{ color-scheme: light dark; --line: #8886; --soft: #8882; --quiet: light-dark(#57606a, #a3adb8); }}
* {{ box-sizing: border-box; }}
body {{ font: 16px/1.5 system-ui, sans-serif; margin: 0 auto; padding: 1.5rem; max-width: 118rem; }}
h1 {{ font-size: 1.4rem; margin: .6rem 0 .2rem; overflow-wrap: anywhere; }}
h2 {{ font-size: 1rem; margin: 2rem 0 .6rem; }}
a {{ color: light-dark(#0b57d0, #79b8ff); }}
p, figcaption {{ margin: 0 0 .4rem; color: var(--quiet); }}
table {{ border-collapse: collapse; width: 100%; }}
th, td {{ text-align: left; vertical-align: top; padding: .35rem .75rem .35rem 0;
 border-bottom: 1px solid var(--line); }}
th {{ font-weight: 600; width: 16rem; }}
.frames {{ display: flex; flex-wrap: wrap; gap: 1.5rem; margin-top: 1.5rem; }}
figure {{ margin: 0; max-width: 100%; overflow-x: auto; }}
iframe {{ display: block; box-sizing: content-box; height: 46rem; border: 1px solid var(--line); border-radius: .5rem;
 resize: vertical; }}
.phone {{ width: {phone}px; }}
.desktop {{ width: {desktop}px; }}
.light {{ color-scheme: light; }}
.dark {{ color-scheme: dark; }}
pre {{ margin: 0; max-width: 56rem; height: 46rem; overflow: auto; padding: 1rem; border-radius: .5rem;
 background: var(--soft); }}
</style>
</head>
<body>
{body}
</body>
</html>
"""


def write(config: Config, folder: Path, *, now: datetime) -> tuple[Path, int]:
    """Render every sample into pages in ``folder``. Returns the path of the index, and the number of samples.

    Raises:
        TemplateError: a template has a fault.
        ConfigError: a link cannot be filled in, or the folder cannot be written.
    """
    renderer = Renderer(config.email.templates, config.email)
    samples = list(render_all(config, renderer, now=now))
    index = folder / "index.html"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for before, sample, after in zip([None, *samples], samples, [*samples[1:], None], strict=False):
            (folder / f"{sample.key}.html").write_text(_sample_page(sample, before, after), encoding="utf-8")
        index.write_text(_index_page(config.email.service, samples), encoding="utf-8")
    except OSError as error:
        msg = f"{folder} cannot be written ({error.strerror}); name another folder with --out."
        raise ConfigError(msg) from None
    return index, len(samples)


def _index_page(service: str, samples: Sequence[Sample]) -> str:
    body = [f"<h1>Emails of {escape(service)}</h1>", f"<p>{len(samples)} samples, on made-up tokens.</p>"]
    for tier, of_tier in groupby(samples, key=lambda sample: sample.tier):
        body.append(f"<h2>Tier {escape(tier)}</h2>\n<table>")
        for kind, of_kind in groupby(of_tier, key=lambda sample: sample.kind):
            lines = (f'<a href="{_file(one)}">{_language(one)}</a> {escape(one.content.subject)}' for one in of_kind)
            body.append(f"<tr><th>{_KINDS[kind]}</th><td>{'<br>'.join(lines)}</td></tr>")
        body.append("</table>")
    return _page("Emails", body)


def _sample_page(sample: Sample, before: Sample | None, after: Sample | None) -> str:
    links = [
        *([f'<a href="{_file(before)}">Previous</a>'] if before else []),
        '<a href="index.html">All</a>',
        *([f'<a href="{_file(after)}">Next</a>'] if after else []),
    ]
    body = [
        f"<p>{' · '.join(links)}</p>",
        f"<h1>{escape(sample.content.subject)}</h1>",
        f"<p>Tier {escape(sample.tier)} · {_KINDS[sample.kind]} · {_language(sample)}</p>",
    ]
    for device, width in (("phone", PHONE), ("desktop", DESKTOP)):
        frames = [_frame(sample.content.html, device, width, scheme) for scheme in ("light", "dark")]
        if device == "phone":
            frames.append(f"<figure><figcaption>Text</figcaption><pre>{escape(sample.content.text)}</pre></figure>")
        body.append(f'<div class="frames">{"".join(frames)}</div>')
    return _page(sample.content.subject, body)


def _frame(html: str, device: str, width: int, scheme: str) -> str:
    title = f"{device.capitalize()}, {scheme}, {width} px"
    frame = f'<iframe class="{device} {scheme}" sandbox="" title="{title}" srcdoc="{escape(html)}"></iframe>'
    return f"<figure><figcaption>{title}</figcaption>{frame}</figure>"


def _page(title: str, body: Sequence[str]) -> str:
    return _PAGE.format(title=escape(title), body="\n".join(body), phone=PHONE, desktop=DESKTOP)


def _file(sample: Sample) -> str:
    return f"{sample.key}.html"


def _language(sample: Sample) -> str:
    return sample.locale or "default"
