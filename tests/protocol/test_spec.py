"""`docs/spec/frame.md` says what the code does: its example and its tables are compared."""

import re
from pathlib import Path

from protocol.access import REQUESTS
from protocol.codec import decode, encode
from protocol.codes import EXPLANATIONS, CloseCode
from protocol.frames import HEADER, FrameType
from protocol.limits import FRAME_LIMITS
from protocol.link import BINDING_LABEL
from protocol.messages import MESSAGES, VERSION, LedgerGet, Message

PAGE = (Path(__file__).parents[2] / "docs/spec/frame.md").read_text()

EXAMPLE = LedgerGet(
    trace="c0ffee", call=1, slot=bytes(range(32)), n=4, entry_id=bytes(range(32, 64))
)


def section(title: str) -> str:
    return PAGE.split(f"\n## {title}\n")[1].split("\n## ")[0]


def rows(title: str) -> list[list[str]]:
    """The cells of a section's table, without its two head lines."""
    lines = [line for line in section(title).splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]


def names(types: frozenset[type[Message]]) -> str:
    return " ".join(frame.name for frame in sorted(message.FRAME for message in types))


def message_rows() -> list[list[str]]:
    return [
        [
            f"`0x{message.FRAME:02x}`",
            message.FRAME.name,
            str(FRAME_LIMITS[message.FRAME]),
            ", ".join(f for f in message.__struct_fields__ if f not in ("trace", "call")),
            names(message.ANSWERS),
        ]
        for message in MESSAGES
    ]


def access_rows() -> list[list[str]]:
    return [
        [link, sender, receiver, names(asks)] for (link, sender, receiver), asks in REQUESTS.items()
    ]


def code_rows() -> list[list[str]]:
    return [[str(int(code)), code.name, EXPLANATIONS[code]] for code in CloseCode]


def test_the_example_is_a_frame() -> None:
    block = section("Example").split("```")[1]
    dump = "".join(re.findall(r"^    ?([0-9a-f ]+?)(?:  .*)?$", block, re.MULTILINE))
    frame = bytes.fromhex(dump)
    assert frame == encode(EXAMPLE)
    assert decode(FrameType(frame[4]), frame[HEADER:]) == EXAMPLE


def test_the_messages_are_these() -> None:
    assert rows("Messages") == message_rows()


def test_the_access_table_is_this() -> None:
    assert rows("Who may ask what") == access_rows()


def test_the_close_codes_are_these() -> None:
    assert rows("Close codes") == code_rows()


def test_numbers_and_labels_are_named() -> None:
    assert f"version {VERSION}" in PAGE
    assert BINDING_LABEL.decode() in PAGE
