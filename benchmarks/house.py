"""The size of the code, and who imports whom: ``python benchmarks/house.py`` in the root of any checkout."""

import ast
import re
import sys
from pathlib import Path

from grimp import build_graph

VERBS = ("train", "score", "runs", "compare", "report", "sync", "clean", "predict", "register", "serve", "export")
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
    graph = build_graph("seg", include_external_packages=False)
    reached = {"seg.train", *graph.find_upstream_modules("seg.train")}
    print(f"Python in seg/              {sum(sizes.values()):,} lines in {len(sizes)} files")
    print(f"  outside {', '.join(APART)}  {core:,}")
    print(*(f"  {room:<10} {lines:,}" for room, lines in by_room.items()), sep="\n")
    print(f"JS, CSS, HTML               {pages:,}")
    print(f"top floor, without verbs    {len(top)} files: {', '.join(sorted(top))}")
    print(f"one run, to be read         {sum(sizes[path] for path in read):,} lines in {len(read)} files")
    print(f"seg.train can import        {len(reached)} modules, {sum(lines_of(sizes, name) for name in reached):,} lines")
    print(f"imports between rooms       {len(arrows(graph))}")
    print(f"Any                         {len(ANY.findall(text))}")
    print(f"functions above 60 lines    {', '.join(long_functions(sizes)) or 'none'}")
    print(f"files above 300 lines       {', '.join(f'{p.name} {n}' for p, n in sizes.items() if n > 300) or 'none'}")


def room_of(path: Path, root: Path) -> str:
    return path.relative_to(root).parts[0] if path.parent != root else "top"


def arrows(graph: object) -> set[tuple[str, str]]:
    """Pairs of a module and a module of another room that it imports."""
    room = lambda name: name.split(".")[1] if name.count(".") > 1 else name  # noqa: E731 — a top-floor module is its own room
    pairs = {(a, b) for a in graph.modules for b in graph.find_modules_directly_imported_by(a)}
    return {(a, b) for a, b in pairs if room(a) != room(b) and a.count(".") > 1 and b.count(".") > 1}


def lines_of(sizes: dict[Path, int], name: str) -> int:
    place = Path(*name.split("."))
    return sum(n for path, n in sizes.items() if path.with_suffix("").parts[-len(place.parts) :] == place.parts)


def long_functions(sizes: dict[Path, int]) -> list[str]:
    found = (node for path in sizes for node in ast.walk(ast.parse(path.read_text())))
    functions = (node for node in found if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef))
    return [f.name for f in functions if (f.end_lineno or 0) - f.lineno >= 60]


if __name__ == "__main__":
    main()
