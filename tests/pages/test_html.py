"""The shell and the table that all pages share: no name can break them, nothing is loaded."""

from html.parser import HTMLParser

from seg.pages.html import list_html, page, table_html
from seg.study.typeset import Cell, Table

HOSTILE = "</td></table><script>alert(1)</script><img src=x onerror=alert(1)>'\"&\ud800"


class Tags(HTMLParser):
    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.data: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.data.append(data)

    def policy(self) -> str:
        (policy,) = [a["content"] for tag, a in self.found if tag == "meta" and "http-equiv" in a]
        return str(policy)


def test_any_text_may_stand_anywhere() -> None:
    table = Table(HOSTILE, [HOSTILE] * 2, {HOSTILE: [[Cell(HOSTILE), Cell(HOSTILE, bold=True, mark="▲")]]}, HOSTILE)
    text = page(HOSTILE, HOSTILE, table_html(table, [HOSTILE]) + list_html([HOSTILE]))
    tags = Tags(text)
    assert not {tag for tag, _ in tags.found} & {"script", "img"}
    assert tags.data.count(HOSTILE.replace("\ud800", "?")) >= 9, "and comes out as it went in"
    text.encode()  # a file can hold it


def test_nothing_runs_but_the_scripts_of_the_page() -> None:
    without, with_one = Tags(page("a", "b", "c")), Tags(page("a", "b", "c", scripts=["let x = 1;"]))
    assert "default-src 'none'" in without.policy()
    assert "script-src 'none'" in without.policy()
    assert "script-src 'sha256-" in with_one.policy()
    assert "unsafe" not in with_one.policy()
    assert [tag for tag, _ in with_one.found].count("script") == 1


def test_each_line_of_a_cell_has_its_link() -> None:
    cell = Cell("one\ntwo\nthree", links=["https://a/?x=1&y=2", "", "#three"])
    links = [attributes["href"] for tag, attributes in Tags(table_html(table_of(cell))).found if tag == "a"]
    assert links == ["https://a/?x=1&y=2", "#three"]


def table_of(cell: Cell) -> Table:
    return Table("t", ["a", "b"], {"": [[Cell("row"), cell]]}, "")
