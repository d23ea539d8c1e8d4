"""cffi, API mode: the C declarations come from headers that the compiler reads as well."""

from __future__ import annotations

import re
from pathlib import Path

from cffi import FFI

CSRC = Path(__file__).parent.resolve()
# Headers in plain declarations, in dependency order; and the sources behind them.
HEADERS = ["sys_api.h", "api.h"]
SOURCES = [
    "syscalls.c",
    "decide.c",
    "policy.c",
    "ring.c",
    "watch.c",
    "privilege.c",
    "filters.c",
    "landlock.c",
]


def declarations(header: Path) -> str:
    """Return what lies between the `/* cffi: begin */` and `/* cffi: end */` marks."""
    text = header.read_text(encoding="ascii")
    parts = re.findall(r"/\* cffi: begin \*/(.*?)/\* cffi: end \*/", text, re.DOTALL)
    return "\n".join(parts)


ffibuilder = FFI()
for name in HEADERS:
    # Without comments; a `#define` that is no plain number gets its value from the compiler.
    text = re.sub(r"(?s)/\*.*?\*/", "", declarations(CSRC / name))
    unknown = r"(?m)^#define\s+(\w+)[ \t]+(?![ \t]|0x|\d).*$"
    ffibuilder.cdef(re.sub(unknown, r"#define \1 ...", text))
ffibuilder.set_source(
    "eci_supervisor._eci",
    "\n".join(f'#include "{name}"' for name in HEADERS),
    sources=[f"csrc/{name}" for name in SOURCES],
    include_dirs=[str(CSRC)],
    extra_compile_args=[
        "-std=gnu11",
        "-O2",
        "-D_GNU_SOURCE",
        "-fstack-protector-strong",
        "-fcf-protection",
        "-fvisibility=hidden",
        "-Wno-unused-function",
    ],
    extra_link_args=["-Wl,-z,relro,-z,now"],
)

if __name__ == "__main__":
    ffibuilder.compile(verbose=True)
