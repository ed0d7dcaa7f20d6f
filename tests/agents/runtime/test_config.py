import os
import tracemalloc
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

import pytest

from agents.runtime.address import HostPort
from agents.runtime.config import MAX_CONFIG, REQUIRED, load, option, render_sample, table
from agents.runtime.errors import ConfigError, Exit


class Level(StrEnum):
    INFO = "info"
    DEBUG = "debug"


def even(value: int) -> str | None:
    return "expected an even number" if value % 2 else None


@dataclass(frozen=True, slots=True)
class Links:
    """Limits of links."""

    idle: float = option(60.0, "Close a link that is silent for so long.", "seconds", minimum=1)
    backlog: int = option(100, "Connections that wait.", minimum=0, maximum=1000, check=even)


@dataclass(frozen=True, slots=True)
class Config:
    """A client.

    The second paragraph says more.
    """

    state: Path = option(REQUIRED, "State directory.", example="/var/lib/anchorline/client")
    listen: HostPort = option(HostPort("0.0.0.0", 14172), "Where to listen.")  # noqa: S104
    servers: list[HostPort] = option([], "Servers to choose from.")
    subnets: tuple[str, ...] = option(("10.0.0.0/8",), "Inside.")
    level: Level = option(Level.INFO, "Log level.")
    peers: bool = option(True, "Whether to link to neighbours.")
    host: str | None = option(None, "Name shown to operators.", example="pc-1")
    links: Links = table(Links, "Limits of links.")


FULL = """
state = "/s"
listen = "[::1]:1"
servers = ["a", "b:2"]
subnets = []
level = "debug"
peers = false
host = "x"
[links]
idle = 5
backlog = 2
"""


def problems(text: str) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        load(text, Config)
    return caught.value.problems


def test_a_full_file() -> None:
    config = load(FULL, Config)
    assert config == Config(
        state=Path("/s"),
        listen=HostPort("::1", 1),
        servers=[HostPort("a", 14172), HostPort("b", 2)],
        subnets=(),
        level=Level.DEBUG,
        peers=False,
        host="x",
        links=Links(5.0, 2),
    )
    assert isinstance(config.links.idle, float)


def test_defaults() -> None:
    config = load('state = "/s"', Config)
    assert config == Config(Path("/s"))
    # No two instances share a list.
    assert load('state = "/s"', Config).servers is not config.servers


def test_all_problems_at_once() -> None:
    text = """
        stat = "/s"
        listen = "a:b"
        peers = 1
        level = "loud"
        [links]
        idle = 0
        backlog = 3
        baklog = 4
    """
    assert problems(text) == [
        "stat: unknown, did you mean state?",
        "state: missing, expected a path",
        "listen: got 'a:b', expected an address \"host:port\""
        " (port is 'b', expected a number from 0 to 65535)",
        'level: got \'loud\', expected one of "info", "debug"',
        "peers: got 1, expected true or false",
        "links.baklog: unknown, did you mean backlog?",
        "links.idle: got 0, expected a number of at least 1 seconds",
        "links.backlog: got 3, expected an even number",
    ]


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("host = 3", "host: got 3, expected a text"),
        ("links = 3", "links: got 3, expected a table [links]"),
        ("servers = 3", 'servers: got 3, expected a list of addresses "host:port"'),
        ("servers = ['a', 3]", 'servers[1]: got 3, expected an address "host:port"'),
        ("subnets = 'a'", "subnets: got 'a', expected a list of texts"),
        ("level = 3", 'level: got 3, expected one of "info", "debug"'),
        ("LEVEL = 'info'", "LEVEL: unknown, did you mean level?"),
        ("links.idle = nan", "links.idle: got nan, expected a number of at least 1 seconds"),
        ("links.idle = true", "links.idle: got true, expected a number of at least 1 seconds"),
        ("links.backlog = 1.5", "links.backlog: got 1.5, expected an integer from 0 to 1000"),
        ("links.backlog = true", "links.backlog: got true, expected an integer from 0 to 1000"),
        ("links.backlog = 1002", "links.backlog: got 1002, expected an integer from 0 to 1000"),
        (
            "zzz = 3",
            "zzz: unknown, expected one of state, listen, servers, subnets, level, peers, host,"
            " links",
        ),
    ],
)
def test_each_problem(line: str, problem: str) -> None:
    assert problems(f'state = "/s"\n{line}') == [problem]


def test_an_empty_path_is_no_path() -> None:
    assert problems('state = ""') == ["state: got '', expected a path"]


@dataclass(frozen=True, slots=True)
class Optional:
    """Options that may be None, of every type."""

    text: str | None = option(None, "Text.")
    path: Path | None = option(None, "Path.")
    address: HostPort | None = option(None, "Address.")
    level: Level | None = option(None, "Level.")
    number: int | None = option(None, "Number.", minimum=1)
    names: list[str] | None = option(None, "Names.", check=lambda _: "never asked about nothing")


@pytest.mark.parametrize("name", Optional.__dataclass_fields__)
def test_an_empty_text_is_none_where_none_may_be(name: str) -> None:
    assert load(f'{name} = ""', Optional) == Optional()


def test_hostile_text_is_quoted_and_cut() -> None:
    (problem,) = problems(f'state = "/s"\nlevel = "\\u001b[2J{"x" * 1000}"')
    assert problem.isprintable()
    assert len(problem) < 200


def test_what_a_file_has_is_shown_in_one_line_of_ascii() -> None:
    assert problems('state = "a\\u0000b"\nlevel = "\\u0430\\n"') == [
        r"state: got 'a\x00b', expected a path",
        r"level: got '\u0430\n', expected one of " + '"info", "debug"',
    ]


def test_text_that_is_not_toml() -> None:
    (problem,) = problems("state = ")
    assert problem.startswith("not TOML: invalid value (at end")


def test_the_message_names_the_file_and_each_problem(tmp_path: Path) -> None:
    path = tmp_path / "client.toml"
    path.write_text("x = 1")
    with pytest.raises(ConfigError) as caught:
        load(path, Config)
    head, *rest = str(caught.value).splitlines()
    assert head == f"2 problems in {path}"
    assert rest == [f"  {problem}" for problem in caught.value.problems]
    assert caught.value.exit_code == Exit.USAGE


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    path = tmp_path / "client.toml"
    with pytest.raises(ConfigError, match="does not exist") as caught:
        load(path, Config)
    assert "config new" in caught.value.hint
    path.write_bytes(b"x = '\xff'")
    with pytest.raises(ConfigError, match="not UTF-8 at byte 5"):
        load(path, Config)
    path.write_bytes(b"#" * (MAX_CONFIG + 1))
    with pytest.raises(ConfigError, match="exceeds the limit"):
        load(path, Config)
    with pytest.raises(ConfigError, match="cannot read the file: is a directory"):
        load(tmp_path, Config)


def test_no_more_of_a_file_is_read_than_a_configuration_may_have(tmp_path: Path) -> None:
    path = tmp_path / "client.toml"
    path.write_bytes(b"")
    os.truncate(path, 64 * MAX_CONFIG)
    tracemalloc.start()
    try:
        with pytest.raises(ConfigError, match="exceeds the limit"):
            load(path, Config)
        assert tracemalloc.get_traced_memory()[1] < 8 * MAX_CONFIG
    finally:
        tracemalloc.stop()


def test_a_relative_path_counts_from_the_folder_of_the_file(tmp_path: Path) -> None:
    path = tmp_path / "client.toml"
    path.write_text('state = "state"')
    assert load(path, Config).state == tmp_path / "state"
    path.write_text('state = "/state"')
    assert load(path, Config).state == Path("/state")


def test_what_options_say_together() -> None:
    @dataclass(frozen=True, slots=True)
    class Window:
        """A window."""

        low: int = option(1, "Low.")
        high: int = option(2, "High.")

        def __post_init__(self) -> None:
            if self.low > self.high:
                raise ValueError(f"low is {self.low}, above high, which is {self.high}")

    with pytest.raises(ConfigError) as caught:
        load("low = 3", Window)
    assert caught.value.problems == ["low is 3, above high, which is 2"]


def test_a_type_that_no_file_has_is_our_mistake() -> None:
    @dataclass(frozen=True, slots=True)
    class Wrong:
        """Wrong."""

        value: complex = option(1j, "No.")

    with pytest.raises(TypeError):
        load('value = "1"', Wrong)


SAMPLE = """\
# A client.
#
# The second paragraph says more.

# State directory. (A path.)
state = "/var/lib/anchorline/client"

# Where to listen. (An address "host:port".)
#listen = "0.0.0.0:14172"

# Servers to choose from. (A list of addresses "host:port".)
#servers = []

# Inside. (A list of texts.)
#subnets = ["10.0.0.0/8"]

# Log level. (One of "info", "debug".)
#level = "info"

# Whether to link to neighbours. (True or false.)
#peers = true

# Name shown to operators. (A text, such as "pc-1".)
#host = ""

# Limits of links.
[links]

# Close a link that is silent for so long. (A number of at least 1 seconds.)
#idle = 60.0

# Connections that wait. (An integer from 0 to 1000.)
#backlog = 100
"""


def test_the_sample() -> None:
    assert render_sample(Config) == SAMPLE


def test_the_sample_works_as_it_is_and_shows_the_defaults() -> None:
    config = load(SAMPLE, Config)
    assert config == Config(Path("/var/lib/anchorline/client"))
    shown = SAMPLE.replace("\n#", "\n").replace("\n ", "\n# ").replace("\n\n#", "\n#")
    shown = "\n".join(line for line in shown.splitlines() if not line.startswith("# "))
    active = load(shown.removeprefix("# A client."), Config)
    assert active == config


def test_a_sample_with_values() -> None:
    values = {"state": Path('/a "b"'), "links.idle": 5.0, "host": "\x7f\\"}
    config = load(render_sample(Config, values), Config)
    assert (config.state, config.links.idle, config.host) == (Path('/a "b"'), 5.0, "\x7f\\")
    with pytest.raises(ValueError, match=r"links\.idel"):
        render_sample(Config, {"links.idel": 1})


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("server.example", HostPort("server.example", 14172)),
        ("server.example:1", HostPort("server.example", 1)),
        ("10.0.0.1:0", HostPort("10.0.0.1", 0)),
        ("[::1]", HostPort("::1", 14172)),
        ("[::1]:65535", HostPort("::1", 65535)),
    ],
)
def test_addresses(text: str, address: HostPort) -> None:
    assert HostPort.parse(text) == address
    assert HostPort.parse(str(address)) == address


@pytest.mark.parametrize(
    "text",
    ["", ":1", "a:", "a:65536", "a:-1", "a:1x", "a:²", "::1", "[::1", "[::1]1", "a b:1", "a\x1b:1"],
)
def test_what_is_no_address(text: str) -> None:
    with pytest.raises(ValueError, match=r"expected|is written"):
        HostPort.parse(text)
