"""Pages that show the inbox's messages: a list, and one page for each. Plain HTML, opened from disk.

The text of a message is not trusted: everything is escaped, its HTML is shown in a sandboxed frame, and nothing is
fetched from elsewhere.
"""

import email
import email.message
from collections.abc import Iterator
from email.errors import MessageError
from email.header import decode_header, make_header
from html import escape
from pathlib import Path
from urllib.parse import quote

SHOWN_HEADERS = ("Date", "From", "To", "Subject")

PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy"
 content="default-src 'none'; style-src 'unsafe-inline'; img-src data:; frame-src 'self'">
<title>{title}</title>
<style>
:root {{ color-scheme: light dark; --line: #8884; --soft: #8881; --quiet: #777; --link: #2563eb; }}
* {{ box-sizing: border-box; }}
body {{ font: 16px/1.5 system-ui, sans-serif; max-width: 64rem; margin: 0 auto; padding: 2rem 1rem; }}
h1 {{ font-size: 1.4rem; margin: 0 0 1.2rem; overflow-wrap: anywhere; }}
h2 {{ font-size: .85rem; margin: 1.8rem 0 .5rem; color: var(--quiet); font-weight: 600; }}
a {{ color: var(--link); text-decoration: none; }}
a:hover {{ text-decoration: underline; }}
table {{ width: 100%; border-collapse: collapse; table-layout: fixed; }}
th, td {{ text-align: left; padding: .5rem .75rem; border-bottom: 1px solid var(--line); overflow-wrap: anywhere;
 vertical-align: top; }}
th {{ font-size: .85rem; color: var(--quiet); font-weight: 600; }}
tbody tr:hover {{ background: var(--soft); }}
.narrow {{ width: 11rem; }}
.medium {{ width: 16rem; }}
.quiet {{ color: var(--quiet); }}
iframe {{ width: 100%; height: 44rem; border: 1px solid var(--line); border-radius: .5rem; background: #fff; }}
pre {{ white-space: pre-wrap; overflow-wrap: anywhere; padding: 1rem; border-radius: .5rem; background: var(--soft); }}
</style>
</head>
<body>
{body}
</body>
</html>
"""


def write_index(folder: Path) -> Path:
    """Write ``index.html``, the newest message first, and the pages of new messages.

    A message never changes, so its page is written once.
    """
    rows = []
    for path in sorted(folder.glob("*.eml"), key=_number, reverse=True):
        raw = path.read_bytes()
        page = path.with_suffix(".html")
        if not page.exists():
            _write_whole(page, _message_page(email.message_from_bytes(raw), path))
        rows.append(_row(_headers_only(raw), page))
    body = '<p class="quiet">No message has arrived yet.</p>'
    if rows:
        head = '<th class="narrow">Date</th><th class="medium">To</th><th>Subject</th>'
        body = f"<table><thead><tr>{head}</tr></thead><tbody>\n{''.join(rows)}</tbody></table>"
    count = f"{len(rows):,} message{'' if len(rows) == 1 else 's'}"
    index = folder / "index.html"
    _write_whole(index, PAGE.format(title="Inbox", body=f'<h1>Inbox <span class="quiet">{count}</span></h1>\n{body}'))
    return index


def _number(path: Path) -> tuple[int, str]:
    number = path.name.partition("-")[0]
    return int(number) if number.isdecimal() else 0, path.name


def _headers_only(raw: bytes) -> email.message.Message:
    return email.message_from_bytes(raw.replace(b"\r\n", b"\n").partition(b"\n\n")[0])


def _row(message: email.message.Message, page: Path) -> str:
    date, to, subject = (escape(_header(message, name)) for name in ("Date", "To", "Subject"))
    link = f'<a href="{escape(quote(page.name))}">{subject or "(no subject)"}</a>'
    return f'<tr><td class="quiet">{date}</td><td>{to}</td><td>{link}</td></tr>\n'


def _message_page(message: email.message.Message, path: Path) -> str:
    subject = _header(message, "Subject") or "(no subject)"
    others = [name for name in dict.fromkeys(message.keys()) if name.title() not in SHOWN_HEADERS]
    lines = [
        f'<tr><th class="medium">{escape(name)}</th><td>{escape(_header(message, name))}</td></tr>'
        for name in (*SHOWN_HEADERS, *others)
        if name in message
    ]
    parts = [f"<p><a href='index.html'>Inbox</a> · <a href='{quote(path.name)}'>{escape(path.name)}</a></p>"]
    parts += [f"<h1>{escape(subject)}</h1>", f"<table>{''.join(lines)}</table>"]
    for kind, text in _texts(message):
        if kind == "text/html":
            frame = f'<iframe sandbox="" title="HTML part" srcdoc="{escape(text)}"></iframe>'
            parts.append(f"<h2>HTML</h2>\n{frame}")
        else:
            parts.append(f"<h2>Text</h2>\n<pre>{escape(text)}</pre>")
    return PAGE.format(title=escape(subject), body="\n".join(parts))


def _texts(message: email.message.Message) -> Iterator[tuple[str, str]]:
    """Yield the parts to be shown, decoded: content type and text; HTML first, as mail programs do."""
    texts = [part for part in message.walk() if part.get_content_maintype() == "text"]
    for part in sorted(texts, key=lambda part: part.get_content_type() != "text/html"):
        payload = part.get_payload(decode=True)
        data = payload if isinstance(payload, bytes) else b""
        try:
            text = data.decode(part.get_content_charset("utf-8"), errors="replace")
        except LookupError:  # a charset that nobody knows
            text = data.decode("utf-8", errors="replace")
        yield part.get_content_type(), text


def _header(message: email.message.Message, name: str) -> str:
    """All values of a header, decoded; undecoded where that fails."""
    return ", ".join(_decoded(str(value)) for value in message.get_all(name, ()))


def _decoded(value: str) -> str:
    try:
        return str(make_header(decode_header(value)))
    except (MessageError, LookupError, ValueError):
        return value


def _write_whole(path: Path, text: str) -> None:
    half = path.with_name(f"{path.name}.half")
    half.write_text(text, encoding="utf-8")
    half.rename(path)
