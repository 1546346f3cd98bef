"""What is in a page, as a parser of HTML sees it."""

from __future__ import annotations

from html.parser import HTMLParser

_VOID = {"meta", "input", "br", "img", "link", "hr"}
# Elements whose end may be left out.
_OPEN = {"td", "tr", "th", "li", "option", "tbody", "thead"}


class Parsed(HTMLParser):
    """Tags, links, scripts, styles and text of a page."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: list[tuple[str, dict[str, str]]] = []
        self.links: list[str] = []
        self.scripts: list[str] = []
        self.problems: list[str] = []
        self.rows: dict[str, int] = {}
        self.styles = self.data = self.policy = ""
        self._words: list[str] = []
        self._open: list[str] = []
        self._table = ""

    @property
    def text(self) -> str:
        """What is read, without scripts and styles."""
        return " ".join(" ".join(self._words).split())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        attributes = {name: value or "" for name, value in attrs}
        self.tags.append((tag, attributes))
        if tag == "a":
            self.links.append(attributes.get("href", ""))
        if tag == "meta" and "http-equiv" in attributes:
            self.policy = attributes["content"]
        if tag == "div" and "table" in attributes.get("class", "").split():
            self._table = attributes.get("id", "")
        if tag == "td" and self._open and self._open[-1] == "td":
            self._open.pop()
        if tag == "tr":
            while self._open and self._open[-1] in ("td", "tr"):
                self._open.pop()
            self.rows[self._table] = self.rows.get(self._table, -1) + 1  # the first holds the headers
        if tag == "script" and attributes.get("type", "") != "application/json":
            self.scripts.append("")
        if tag not in _VOID:
            self._open.append("json" if attributes.get("type") == "application/json" else tag)

    def handle_endtag(self, tag: str) -> None:
        while self._open and self._open[-1] != tag and self._open[-1] in _OPEN:
            self._open.pop()
        if not self._open or self._open[-1] not in (tag, "json"):
            self.problems.append(f"</{tag}> at {self.getpos()} within {self._open[-3:]}")
            return
        self._open.pop()

    def handle_data(self, data: str) -> None:
        within = self._open[-1] if self._open else ""
        if within == "script":
            self.scripts[-1] += data
        elif within == "json":
            self.data += data
        elif within == "style":
            self.styles += data
        else:
            self._words.append(data)


def parse(page: str) -> Parsed:
    """Take a page apart."""
    parsed = Parsed()
    parsed.feed(page)
    parsed.close()
    return parsed
