"""The size of the code, and who imports whom: ``python benchmarks/house.py`` in the root of any checkout."""

import ast
import re
import sys
from pathlib import Path

from grimp import ImportGraph, build_graph

VERBS = sorted(path.stem for path in Path("conf").glob("*.yaml"))
APART = ("study", "pages", "sweep", "deploy")  # rooms that the core does without
ONE_RUN = ("train", "engine/run", "engine/build", "engine/loop", "engine/testing", "engine/checkpoint")
ONE_RUN += ("records/record", "records/folder")
ANY = re.compile(r"\bAny\b")


def main() -> None:
    root = Path.cwd() / "seg"
    sys.path.insert(0, str(root.parent))
    sizes = {path: len(path.read_text().splitlines()) for path in sorted(root.rglob("*.py"))}
    text = "\n".join(path.read_text() for path in sizes)
    rooms = sorted({room_of(path, root) for path in sizes})
    by_room = {room: sum(n for path, n in sizes.items() if room_of(path, root) == room) for room in rooms}
    core = sum(lines for room, lines in by_room.items() if room not in APART)
    pages = sum(len(p.read_text().splitlines()) for kind in ("js", "css", "html") for p in root.rglob(f"*.{kind}"))
    top = [path.stem for path in root.glob("*.py") if path.stem not in (*VERBS, "__init__")]
    read = [path for name in ONE_RUN if (path := root / f"{name}.py").exists()]
    graph = build_graph("seg")
    reached = {"seg.train", *graph.find_upstream_modules("seg.train")}
    rows = {
        "Python in seg/": f"{sum(sizes.values()):,} lines in {len(sizes)} files",
        f"  outside {', '.join(APART)}": f"{core:,}",
        **{f"  {room}": f"{lines:,}" for room, lines in by_room.items()},
        "JS, CSS, HTML": f"{pages:,}",
        "top floor, without verbs": f"{len(top)} files: {', '.join(sorted(top))}",
        "one run, to be read": f"{sum(sizes[path] for path in read):,} lines in {len(read)} files",
        "seg.train can import": f"{len(reached)} modules, {sum(lines_of(sizes, name) for name in reached):,} lines",
        "imports between rooms": str(len(arrows(graph))),
        "Any": str(len(ANY.findall(text))),
        "functions above 60 lines": ", ".join(long_functions(sizes)) or "none",
        "files above 300 lines": ", ".join(f"{p.name} {n}" for p, n in sizes.items() if n > 300) or "none",
    }
    print(*(f"{name:<42}{value}" for name, value in rows.items()), sep="\n")


def room_of(path: Path, root: Path) -> str:
    return path.relative_to(root).parts[0] if path.parent != root else "top"


def arrows(graph: ImportGraph) -> set[tuple[str, str]]:
    """Pairs of a module in a room and a module of another room that it imports."""
    inside = [name for name in graph.modules if name.count(".") > 1]
    pairs = {(a, b) for a in inside for b in graph.find_modules_directly_imported_by(a) if b in inside}
    return {(a, b) for a, b in pairs if a.split(".")[1] != b.split(".")[1]}


def lines_of(sizes: dict[Path, int], name: str) -> int:
    place = Path(*name.split("."))
    return sum(n for path, n in sizes.items() if path.with_suffix("").parts[-len(place.parts) :] == place.parts)


def long_functions(sizes: dict[Path, int]) -> list[str]:
    found = (node for path in sizes for node in ast.walk(ast.parse(path.read_text())))
    functions = (node for node in found if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef))
    return [f.name for f in functions if (f.end_lineno or 0) - f.lineno >= 60]


if __name__ == "__main__":
    main()
