#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The house rules that compilers and formatters do not check.

    scripts/tidy.py [ROOT]      prints `file:line: what (rule)`; exit status 1 if anything is found

Rules: layering, include, platform, length, parameters, columns, contract, ban, words, licence and
name; each is described where it is checked.
"""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

# Which rooms a room may include from. Arrows are transitive: whoever knows node knows base.
ROOMS = {
    "base": {"base"},
    "shm": {"base", "shm"},
    "gossip": {"base", "gossip"},
    "zmq_transport": {"base", "zmq_transport"},
    "node": {"base", "shm", "gossip", "zmq_transport", "node"},
    "python": {"base", "node", "python"},
}
# The headers of node/ that the extension may include.
NODE_FACE = {"node/pulsing.h", "node/attach.h", "node/launch.h", "node/requests.h"}
# Platform calls live in these files and nowhere else in the rooms (tests are free).
PLATFORM_FILES: dict[str, set[str]] = {
    "memory files": {
        "shm/segment.c",
        "node/directory.c",
        "node/launch.c",
        "node/memory_file.c",
        "node/runtime.c",
    },
    "doorbells": {
        "shm/bell.c",
        "node/process/vigil.c",
        "node/process/lookup.c",
        "node/process/output.c",
        "zmq_transport/reactor.c",
    },
    "process handles": {"node/launch.c", "node/process/handle.c"},
    "processes": {"node/launch.c", "node/process/main.c", "node/process/template.c"},
    "sockets": {
        "node/address.c",
        "node/attach_calls.c",
        "node/control.c",
        "node/launch.c",
        "node/process/node.c",
        "node/process/reach.c",
        "node/process/template.c",
        "node/process/workers.c",
        "zmq_transport/address.c",
    },
    "polling": {
        "shm/bell.c",
        "node/attach_calls.c",
        "node/launch.c",
        "node/process/handle.c",
        "node/process/loop.c",
        "node/process/main.c",
        "node/process/output.c",
        "node/wait.c",
        "python/wait.c",
        "zmq_transport/reactor.c",
    },
}
PLATFORM_CALLS = {
    "memory files": ("memfd_create", "mmap", "munmap", "mremap", "fallocate", "ftruncate"),
    "doorbells": ("eventfd", "eventfd_read", "eventfd_write"),
    "process handles": ("pidfd_open", "pidfd_send_signal", "pidfd_getfd", "waitid", "waitpid"),
    "processes": ("fork", "vfork", "clone", "execv", "execve", "execvp", "posix_spawn", "prctl"),
    "sockets": (
        "socket",
        "socketpair",
        "bind",
        "listen",
        "accept4",
        "accept",
        "sendmsg",
        "recvmsg",
    ),
    "polling": ("epoll_create1", "epoll_ctl", "epoll_wait", "poll", "ppoll", "timerfd_create"),
}
# gossip is pure: these headers would give it a clock, a descriptor, a thread or a log.
IMPURE_HEADERS = re.compile(r"<(sys/.*|time\.h|unistd\.h|pthread\.h|threads\.h|stdio\.h|fcntl\.h)>")

COLUMNS_MAX = 100
FUNCTION_LINES_MAX = 70
PARAMETERS_MAX = 6
FILE_LINES_MAX = {".c": 600, ".h": 250}

BANNED_CALLS = re.compile(
    r"\b(strcpy|strcat|strncpy|sprintf|vsprintf|gets|atoi|atol|atof|rand|srand|strtok|alloca)\s*\("
)
BANNED_PYTHON_API = re.compile(
    r"\b(PyGILState_\w+|_Py[A-Z]\w*)|^\s*(?:static\s+)?PyTypeObject\s+\w+\s*="
)
# Spelled in pieces, so that this file does not break the rules that it states.
LATER = r"\b(" + "|".join(("TO" + "DO", "FIX" + "ME", "XX" + "X")) + r")\b"
REGISTRIES = ["pypi org", "pythonhosted org", "anaconda org", "crates io", "npmjs com"]
REGISTRIES += ["npmjs org", "docker io", "ghcr io", "quay io"]
REGISTRY_HOSTS = "|".join(re.escape(host.replace(" ", ".")) for host in REGISTRIES)
BANNED_WORDS = [
    (re.compile(LATER), "a note to do something later"),
    (re.compile(r"^\s*(/\*|//|#|\*)\s*([-=*#~_])\2{3,}"), "a banner line"),
    (re.compile(r"(?<![\w.~>}])/(root|home|Users|work|data)/\w"), "a path of one machine"),
    (re.compile(rf"(?i)\b({REGISTRY_HOSTS})\b"), "a package registry's host"),
    (re.compile(r"(?i)(@a[u]thor\b|copyright[ ]\(c\))"), "an author"),
]
VAGUE_NAMES = {"util", "utils", "common", "misc", "helper", "helpers", "part2"}
LICENCE = "SPDX-License-Identifier: Apache-2.0"
TEXT_SUFFIXES = {
    ".c",
    ".h",
    ".py",
    ".pyi",
    ".md",
    ".txt",
    ".cmake",
    ".toml",
    ".yaml",
    ".yml",
    ".json",
}
LICENSED_SUFFIXES = {".c", ".h", ".py"}


@dataclass(frozen=True, order=True)
class Finding:
    path: str
    line: int
    what: str
    rule: str

    def __str__(self) -> str:
        return f"{self.path}:{self.line}: {self.what} ({self.rule})"


class Source:
    """One file: its lines, and for C the same lines with comments and literals blanked out."""

    def __init__(self, root: Path, path: str) -> None:
        self.path = path
        self.room = path.split("/")[0]
        self.suffix = Path(path).suffix
        self.text = (root / path).read_text(encoding="utf-8")
        self.lines = self.text.splitlines()
        self.is_c = self.suffix in (".c", ".h")
        self.code = blank_c(self.text).splitlines() if self.is_c else self.lines

    def find(self, line: int, what: str, rule: str) -> Finding:
        return Finding(self.path, line, what, rule)


C_TOKENS = re.compile(r"/\*.*?\*/|//[^\n]*|\"(?:\\.|[^\"\\\n])*\"|'(?:\\.|[^'\\\n])*'", re.DOTALL)


def blank_c(text: str) -> str:
    """`text` with comments and literals replaced by blanks, newlines and include paths kept."""

    def blank(match: re.Match[str]) -> str:
        before = text[text.rfind("\n", 0, match.start()) + 1 : match.start()]
        if re.match(r"\s*#\s*include\s*$", before):
            return match.group()
        return re.sub(r"[^\n]", " ", match.group())

    return C_TOKENS.sub(blank, text)


def check_includes(source: Source) -> Iterator[Finding]:
    """layering, include: the arrows between rooms, the one face of node, who may see czmq."""
    if source.room not in ROOMS:
        return
    for number, line in enumerate(source.code, 1):
        match = re.match(r"\s*#\s*include\s*(<[^>]+>|\"[^\"]+\")", line)
        if match is None:
            continue
        target = match.group(1)
        name = target[1:-1]
        if name in ("czmq.h", "zmq.h") and source.path != "zmq_transport/socket.c":
            yield source.find(number, f"{name} outside of zmq_transport/socket.c", "include")
        if source.room == "gossip" and IMPURE_HEADERS.fullmatch(target):
            yield source.find(number, f"{target} in gossip, which is pure", "layering")
        if target[0] == "<":
            continue
        room = name.split("/")[0]
        if room not in ROOMS or "/" not in name:
            yield source.find(number, f'"{name}" is not spelled from the root', "include")
        elif room not in ROOMS[source.room]:
            yield source.find(number, f"{source.room} must not know {room}", "layering")
        elif source.room == "python" and room == "node" and name not in NODE_FACE:
            yield source.find(number, "python knows node by its public headers alone", "layering")


def check_platform(source: Source) -> Iterator[Finding]:
    """platform: system calls of one kind stay in the files that are named for them."""
    if source.room not in ROOMS or not source.is_c:
        return
    for kind, calls in PLATFORM_CALLS.items():
        if source.path in PLATFORM_FILES[kind]:
            continue
        pattern = re.compile(r"(?<![\w.>])(" + "|".join(calls) + r")\s*\(")
        for number, line in enumerate(source.code, 1):
            match = pattern.search(line)
            if match:
                what = f"{match.group(1)}() outside of the files for {kind}"
                yield source.find(number, what, "platform")


def c_functions(source: Source) -> Iterator[tuple[int, int, str]]:
    """First line, last line and signature of each function defined at the left margin."""
    begin = 0
    for index, line in enumerate(source.code):
        if line == "{":
            signature = " ".join(source.code[begin:index])
            end = next((i for i in range(index, len(source.code)) if source.code[i] == "}"), index)
            if "(" in signature and "=" not in signature.split("(")[0]:
                yield begin + 1, end + 1, signature
        if line.strip() == "" or line.startswith(("#", "}")) or line.endswith(";"):
            begin = index + 1


def parameter_count(signature: str) -> int:
    inner = signature[signature.index("(") + 1 : signature.rindex(")")]
    depth, count = 0, 1
    for character in inner:
        depth += {"(": 1, ")": -1}.get(character, 0)
        count += character == "," and depth == 0
    return 0 if inner.strip() in ("", "void") else count


def declared(signature: str) -> str:
    """The part of a signature from the function's name on, attributes in front of it left out."""
    signature = re.sub(r"__attribute__\s*\(\(.*?\)\)", " ", signature)
    match = re.search(r"\b\w+\s*\((?!\s*\*)", signature)
    return signature[match.start() :] if match else signature


def check_lengths(source: Source) -> Iterator[Finding]:
    """length, parameters, columns."""
    if source.suffix in (".c", ".h", ".py", ".pyi"):
        for number, line in enumerate(source.lines, 1):
            if len(line) > COLUMNS_MAX:
                yield source.find(number, f"{len(line)} columns, {COLUMNS_MAX} at most", "columns")
    if not source.is_c:
        return
    most = FILE_LINES_MAX[source.suffix]
    if len(source.lines) > most:
        yield source.find(most + 1, f"{len(source.lines)} lines, {most} at most", "length")
    for begin, end, signature in c_functions(source):
        lines = end - begin + 1
        if lines > FUNCTION_LINES_MAX:
            what = f"a function of {lines} lines, {FUNCTION_LINES_MAX} at most"
            yield source.find(begin, what, "length")
        count = parameter_count(declared(signature))
        if count > PARAMETERS_MAX:
            what = f"{count} parameters, {PARAMETERS_MAX} at most"
            yield source.find(begin, what, "parameters")


PROTOTYPE = re.compile(
    r"(?!typedef|static|return)[A-Za-z_][^;{}=#]*?\b((?:pls|pulsing)_\w+)\s*\([^;{}]*\)[^;{}()]*;"
)


def check_contracts(source: Source) -> Iterator[Finding]:
    """contract: every public prototype is preceded by a comment that says who may call it.

    Prototypes that follow each other without an empty line share the comment above the first. A
    header whose functions are alike may say once who may call "every function of this header"."""
    if source.room not in ROOMS or source.suffix != ".h":
        return
    once = source.room == "python"
    end = -1
    above: str | None = None
    for first, last, name in c_prototypes(source):
        if first != end + 1:
            above = comment_above(source.lines, first)
        end = last
        before = " ".join(line.strip(" */") for line in source.lines[:first])
        once = once or re.search(r"Threads:[^.]*every function (of|in) this", before) is not None
        if above is None:
            yield source.find(first + 1, f"{name}() has no contract", "contract")
        elif not once and "Threads:" not in above:
            what = f"the contract of {name}() has no Threads line"
            yield source.find(first + 1, what, "contract")


def c_prototypes(source: Source) -> Iterator[tuple[int, int, str]]:
    """First and last line (from 0) and name of each function declared at the left margin."""
    code = "\n".join(source.code)
    for match in re.finditer(r"(?m)^(?=[A-Za-z_])", code):
        prototype = PROTOTYPE.match(code[match.start() :])
        if prototype is not None:
            first = code.count("\n", 0, match.start())
            yield first, first + prototype.group().count("\n"), prototype.group(1)


def comment_above(lines: list[str], index: int) -> str | None:
    """The comment that ends on the line above `index`."""
    end = index - 1
    if end < 0 or not lines[end].rstrip().endswith("*/"):
        return None
    begin = end
    while begin > 0 and "/*" not in lines[begin]:
        begin -= 1
    return "\n".join(lines[begin : end + 1])


def check_bans(source: Source) -> Iterator[Finding]:
    """ban: calls that overrun, and Python's private or process-wide API."""
    if not source.is_c:
        return
    for number, line in enumerate(source.code, 1):
        for pattern in (BANNED_CALLS, BANNED_PYTHON_API):
            match = pattern.search(line)
            if match:
                name = (match.group(1) or "static PyTypeObject").strip()
                yield source.find(number, f"{name} is banned", "ban")


def check_words(source: Source) -> Iterator[Finding]:
    """words: no notes for later, banners, machine paths, registry hosts or authors."""
    for number, line in enumerate(source.lines, 1):
        for pattern, what in BANNED_WORDS:
            if what == "a banner line" and source.suffix == ".md":
                continue
            if pattern.search(line):
                yield source.find(number, what, "words")


def check_licence(source: Source) -> Iterator[Finding]:
    """licence: the SPDX line opens the file."""
    if source.suffix not in LICENSED_SUFFIXES or not source.lines:
        return
    first = 1 if source.lines[0].startswith("#!") and len(source.lines) > 1 else 0
    if LICENCE not in source.lines[first]:
        yield source.find(first + 1, "no SPDX line at the top", "licence")


def check_name(source: Source) -> Iterator[Finding]:
    """name: one file is one noun."""
    stem = Path(source.path).stem.lower().lstrip("_")
    if source.suffix in LICENSED_SUFFIXES and VAGUE_NAMES & set(stem.split("_")):
        yield source.find(1, f"{Path(source.path).name} does not name one thing", "name")


CHECKS: list[Callable[[Source], Iterator[Finding]]] = [
    check_includes,
    check_platform,
    check_lengths,
    check_contracts,
    check_bans,
    check_words,
    check_licence,
    check_name,
]


def project_files(root: Path) -> list[str]:
    """Tracked files and new ones that git does not ignore."""
    command = ["git", "-C", str(root), "ls-files", "-co", "--exclude-standard", "-z"]
    names = subprocess.run(command, check=True, capture_output=True, text=True).stdout.split("\0")
    return sorted(name for name in set(names) if name and (root / name).is_file())


def is_text(root: Path, path: str) -> bool:
    if Path(path).suffix in TEXT_SUFFIXES or Path(path).name == "CMakeLists.txt":
        return True
    if Path(path).suffix:
        return False
    with (root / path).open("rb") as file:
        return file.read(2) == b"#!"


def check_tree(root: Path) -> list[Finding]:
    findings: list[Finding] = []
    for path in project_files(root):
        if not is_text(root, path):
            continue
        source = Source(root, path)
        for check in CHECKS:
            findings.extend(check(source))
    return sorted(findings)


def main() -> int:
    root = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).resolve().parent.parent
    findings = check_tree(root)
    for finding in findings:
        print(finding)
    print(f"tidy: {len(findings)} found" if findings else "tidy: clean", file=sys.stderr)
    return 1 if findings else 0


if __name__ == "__main__":
    sys.exit(main())
