"""Every reason code has its text: what `eci explain` says of it."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest
from eci_supervisor._eci import lib

import eci_supervisor
from eci_supervisor.kernel.reasons import NAMES, refuses
from eci_supervisor.observe.counts import is_refusal, verdict_of
from eci_supervisor.policy import refusals
from eci_supervisor.runtime.errors import RefusedError

PACKAGE = Path(eci_supervisor.__path__[0])
CODES = {
    name: value
    for name, value in vars(refusals).items()
    if name.isupper() and isinstance(value, str)
}


def test_each_reason_of_the_worker_has_a_name() -> None:
    codes = {getattr(lib, name) for name in dir(lib) if name.startswith("ECI_REASON_")}
    assert codes == set(NAMES)
    assert max(codes) < lib.ECI_REASONS


def test_each_refusal_of_a_call_has_its_text() -> None:
    mine = {name for name in NAMES.values() if is_refusal(name)}
    assert mine <= set(refusals.TEXTS)
    assert mine == {name for code, name in NAMES.items() if refuses(code)}


def test_each_code_of_a_refused_container_has_its_text() -> None:
    assert set(CODES.values()) <= set(refusals.TEXTS)
    assert set(refusals.TEXTS) == {*CODES.values(), *filter(is_refusal, NAMES.values())}


def test_each_code_that_is_written_anywhere_has_its_text() -> None:
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            text = node.value if isinstance(node, ast.Constant) else None
            if isinstance(text, str) and re.fullmatch(r"refused:[\w-]+", text):
                assert text in refusals.TEXTS, path


def test_a_refusal_has_the_code_of_its_class_or_its_own() -> None:
    class SocketRefusedError(RefusedError):
        reason = refusals.ENGINE_SOCKET

    assert RefusedError("x").reason == refusals.CONTAINER_SPEC
    assert SocketRefusedError("x").reason == refusals.ENGINE_SOCKET
    assert RefusedError("x", refusals.HOST_ROOT).reason == refusals.HOST_ROOT


@pytest.mark.parametrize("reason", sorted(refusals.TEXTS))
def test_texts_are_sentences(reason: str) -> None:
    text = refusals.text_of(reason)
    assert text.rule.endswith(".")
    assert text.advice.endswith((".", "`."))
    assert text.setting is None or text.setting.split(".")[0] in {
        "vm",
        "enhancedContainerIsolation",
    }


def test_a_code_of_another_version_is_not_an_error() -> None:
    assert refusals.text_of("refused:something-newer") is refusals.UNKNOWN


def test_each_reason_has_a_verdict() -> None:
    assert {verdict_of(name) for name in NAMES.values()} == {
        "performed",
        "passed",
        "failed",
        "refused",
        "gone",
    }
