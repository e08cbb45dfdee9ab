"""The map in CONTRIBUTING.md, made from the first line of every module: ``make map`` writes it, a test checks it."""

import ast
from pathlib import Path

ROOT = Path(__file__).parent.parent
FILE = ROOT / "CONTRIBUTING.md"
BEGIN, END = "<!-- map: make map -->\n", "<!-- end of map -->\n"
ROOMS = ("config", "data", "models", "engine", "records", "study", "pages", "sweep", "deploy")


def first_line(path: Path) -> str:
    docstring = ast.get_docstring(ast.parse(path.read_text())) or ""
    return " ".join(docstring.partition("\n\n")[0].split())


def drawn() -> str:
    """The map: a list a room, its own line first."""
    parts = []
    for room in (".", *ROOMS):
        folder = ROOT / "seg" / room
        heading = "**`seg/`** verbs, and what every room may use" if room == "." else f"**`seg/{room}/`**"
        own = "" if room == "." else f" {first_line(folder / '__init__.py')}"
        files = [path for path in sorted(folder.glob("*.py")) if path.stem not in ("__init__", "__main__")]
        parts.append(f"{heading}{own}\n\n" + "\n".join(f"- `{path.stem}`: {first_line(path)}" for path in files) + "\n")
    return "\n".join(parts)


def with_map(text: str) -> str:
    """``text`` of CONTRIBUTING.md with the map as it is now."""
    before, rest = text.split(BEGIN)
    return f"{before}{BEGIN}\n{drawn()}\n{END}{rest.split(END)[1]}"


if __name__ == "__main__":
    FILE.write_text(with_map(FILE.read_text()))
