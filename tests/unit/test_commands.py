"""The command list of the settings, against requests."""

from __future__ import annotations

import pytest

from eci_supervisor.policy import api_target
from eci_supervisor.policy.api_routes import routes
from eci_supervisor.policy.commands import ALIASES, FAMILIES, USES, CommandError, Commands, expand
from eci_supervisor.policy.commands import known as known_commands
from eci_supervisor.policy.settings import CommandList


def allowed(commands: Commands, method: str, target: str, content_type: str = "") -> bool:
    """Ask for one request."""
    parsed = api_target.parse(target.encode())
    found = api_target.route_of(method, parsed)
    if found is None:
        return commands.judge_unknown(method, parsed.path).allowed
    names = api_target.commands_of(found[0], parsed.query, content_type)
    return commands.judge(found[0], names).allowed


PUSH = ("POST", "/v1.43/images/myimage/push?tag=latest")
BUILD = ("POST", "/v1.43/build?t=x")
CREATE = ("POST", "/v1.43/containers/create?name=x")
START = ("POST", "/v1.43/containers/x/start")
LIST = ("GET", "/v1.43/containers/json")
PULL = ("POST", "/images/create?fromImage=x&tag=y")
IMPORT = ("POST", "/images/create?fromSrc=-")


@pytest.mark.parametrize(
    ("word", "names"),
    [
        ("push", {"image push"}),
        ("image push", {"image push"}),
        ("docker push", {"image push"}),
        ("Push", {"image push"}),
        ("ps", {"container ls"}),
        ("container list", {"container ls"}),
        ("rmi", {"image rm"}),
        ("image remove", {"image rm"}),
        ("build", {"builder build"}),
        ("buildx build", {"builder build"}),
        ("inspect", {"inspect"}),
        ("container inspect", {"container inspect"}),
        ("login", {"login"}),
        ("logout", set()),
        ("system dial-stdio", set()),
    ],
)
def test_a_word_of_the_settings_stands_for_a_command(word: str, names: set[str]) -> None:
    assert expand(word) == names


def test_a_family_has_all_commands_of_its_name() -> None:
    assert expand("volume*") == {
        f"volume {one}" for one in "create inspect ls prune rm update".split()
    }
    assert expand("build*") == {"builder build", "builder prune"}
    assert expand("builder*") == expand("build*")
    assert "builder build" in expand("image*")
    assert "image push" in expand("image *")
    assert expand("system*") == {f"system {one}" for one in "df events info prune".split()}
    for family in FAMILIES:
        assert expand(f"{family}*")


@pytest.mark.parametrize("word", ["pusch", "", "*", "con*", "image pusch", "p*", "a b c", "**"])
def test_what_is_no_command_is_an_error(word: str) -> None:
    with pytest.raises(CommandError, match="is not a docker command"):
        Commands("deny", [word])


@pytest.mark.parametrize("word", ["container", "image", "volume", "system"])
def test_a_family_without_its_star_is_an_error_that_says_so(word: str) -> None:
    with pytest.raises(CommandError, match=rf'write "{word}\*"'):
        expand(word)


def test_a_list_is_deny_or_allow() -> None:
    with pytest.raises(CommandError, match="neither"):
        Commands("block", [])
    assert Commands.of(CommandList(type="allow", commands=("ps",))).allows


def test_names_in_the_tables_are_those_of_routes() -> None:
    for name in ALIASES.values():
        assert name in known_commands()
    for name, more in USES.items():
        assert {name, *more.split(", ")} <= known_commands()


def test_a_deny_list_denies_what_it_has_and_no_more() -> None:
    commands = Commands("deny", ["push", "build"])
    assert not allowed(commands, *PUSH)
    assert not allowed(commands, *BUILD)
    assert not allowed(commands, "POST", "/session")
    assert not allowed(commands, "POST", "/grpc")
    for other in (CREATE, START, LIST, PULL, IMPORT, ("GET", "/_ping")):
        assert allowed(commands, *other)


def test_an_allow_list_allows_what_its_commands_need_and_no_more() -> None:
    commands = Commands("allow", ["run", "ps"])
    for request in (CREATE, START, LIST, ("POST", "/containers/x/attach?stream=1")):
        assert allowed(commands, *request)
    assert allowed(commands, "POST", "/containers/x/wait?condition=removed")
    for other in (PUSH, BUILD, PULL, ("DELETE", "/containers/x"), ("POST", "/containers/x/exec")):
        assert not allowed(commands, *other)


def test_what_is_needed_along_with_a_command_is_not_what_a_deny_list_denies() -> None:
    commands = Commands("deny", ["run"])
    assert not allowed(commands, *CREATE)
    assert allowed(commands, *START)


def test_an_empty_allow_list_allows_ping_alone() -> None:
    commands = Commands("allow", [])
    for route in routes():
        path = route.path.replace("{*}", "x").replace("{}", "x")
        assert allowed(commands, route.method, path) == (path == "/_ping")


def test_what_gives_the_host_takes_an_allow_list_that_names_it() -> None:
    denying = Commands("deny", [])
    hazards = [route for route in routes() if route.takes_host]
    assert {route.family for route in hazards} == {"plugins", "services", "swarm"}
    for route in hazards:
        path = route.path.replace("{*}", "x").replace("{}", "x")
        assert not allowed(denying, route.method, path)
        naming = Commands("allow", sorted(route.commands))
        assert allowed(naming, route.method, path)
        assert not allowed(Commands("allow", ["container*", "image*"]), route.method, path)


def test_what_gives_the_host_is_not_allowed_as_a_part_of_something_else() -> None:
    assert not allowed(Commands("allow", ["service create"]), "POST", "/services/x/update")
    assert allowed(Commands("allow", ["stack deploy"]), "POST", "/services/x/update")


@pytest.mark.parametrize(
    ("target", "content_type", "pull", "load"),
    [
        ("?fromImage=a", "", True, False),
        ("?fromSrc=-", "", False, True),
        ("?fromSrc=-", "application/x-tar", False, True),
        ("?fromSrc=-", "application/x-www-form-urlencoded", True, True),
        ("?fromSrc=-", "multipart/form-data; boundary=x", True, True),
        ("?fromSrc=-&from%49mage=a", "", True, True),
        ("?fromImage=&fromSrc=-", "", False, True),
        ("?fromImage=&fromImage=a", "", True, False),
        ("?a=b;fromImage=a", "", True, True),
        ("?fromSrc=-;x", "", True, True),
        ("", "", False, True),
    ],
)
def test_pull_and_import_are_told_by_query_and_where_in_doubt_taken_for_both(
    target: str, content_type: str, *, pull: bool, load: bool
) -> None:
    target = f"/images/create{target}"
    no_pull, no_import = Commands("deny", ["pull"]), Commands("deny", ["import"])
    assert allowed(no_pull, "POST", target, content_type) == (not pull)
    assert allowed(no_import, "POST", target, content_type) == (not load)
    only_pull, only_import = Commands("allow", ["pull"]), Commands("allow", ["import"])
    assert allowed(only_pull, "POST", target, content_type) == (pull and not load)
    assert allowed(only_import, "POST", target, content_type) == (load and not pull)


@pytest.mark.parametrize("path", ["/images/x/sign", "/v1.60/images/x/y/z", "/other", "/libpod/x"])
def test_an_unknown_request_is_never_in_an_allow_list(path: str) -> None:
    every = [f"{family}*" for family in FAMILIES]
    assert not allowed(Commands("allow", every), "POST", path)


def test_an_unknown_request_may_read_beside_what_is_not_denied() -> None:
    none, push = Commands("deny", []), Commands("deny", ["push"])
    for path in ("/images/x/signatures", "/v1.60/images/x/signatures"):
        assert allowed(none, "GET", path)
        assert allowed(none, "HEAD", path)
        assert not allowed(push, "GET", path)
    assert allowed(push, "GET", "/v1.60/containers/x/limits")


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "OPTIONS", "post", "GETS"])
@pytest.mark.parametrize("path", ["/images/x/sign", "/v1.60/containers/x/y/z", "/other", "/"])
def test_an_unknown_request_changes_nothing(method: str, path: str) -> None:
    assert not allowed(Commands("deny", []), method, path)


@pytest.mark.parametrize(
    "path",
    [
        "/",
        "/v1.60",
        "/other/x",
        "/libpod/containers/json",
        "/v4.3.1/libpod/containers/x/archive",
        "/v4.3.1-dev/containers/json",
        "/debug/pprof/heap",
        "/plugins/x/y",
        "/v1.60/swarm/tokens",
        "/services/x/y/z",
    ],
)
def test_an_unknown_request_of_an_unknown_kind_or_beside_what_gives_the_host_is_denied(
    path: str,
) -> None:
    assert not allowed(Commands("deny", []), "GET", path)
