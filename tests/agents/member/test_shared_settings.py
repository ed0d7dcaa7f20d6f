"""Settings that a server told: kept, newer ones believed, wrong ones refused."""

from datetime import timedelta
from pathlib import Path

import pytest

from agents.member.shared_settings import SharedSettings
from agents.runtime import logs
from agents.runtime.errors import StateError
from pki.certificates import Kind
from protocol.messages import Done, Refused, Settings
from tests.support.channels import FakeChannel
from tests.support.files import Crash, Failure, MemoryFiles
from tests.support.logs import logged

PATH = Path("/state/settings.json")
NAME = "pki_client_tls_key_duration_days"


class Case:
    def __init__(self, files: MemoryFiles | None = None) -> None:
        self.files = files or MemoryFiles()
        self.changes = 0
        self.link = FakeChannel()
        self.settings = SharedSettings(PATH, self.files, logs.get_logger(), self.changed)

    def take(self, message: Settings, link: FakeChannel | None = None) -> Done | Refused:
        return self.settings.take((link or self.link).channel, message)

    def changed(self) -> None:
        self.changes += 1

    @property
    def validity(self) -> timedelta:
        return self.settings.policies()[Kind.CLIENT_TLS].validity


def told(revision: int, days: str) -> Settings:
    return Settings(revision=revision, values={NAME: days})


async def test_the_defaults_until_something_is_told() -> None:
    assert Case().validity == timedelta(days=7)


@pytest.mark.req("B8")
async def test_what_is_told_acts_at_once() -> None:
    case = Case()
    assert case.take(told(1, "3")) == Done()
    assert case.validity == timedelta(days=3)
    assert case.changes == 1


@pytest.mark.req("B8")
async def test_the_next_start_acts_by_what_was_told_last() -> None:
    case = Case()
    case.take(told(1, "3"))
    again = Case(case.files)
    assert again.validity == timedelta(days=3)
    assert again.settings.message == told(1, "3")


async def test_an_old_message_changes_nothing() -> None:
    case = Case()
    case.take(told(5, "3"))
    assert case.take(told(4, "9")) == Done()
    assert case.validity == timedelta(days=3)
    assert case.changes == 1


@pytest.mark.parametrize("value", ["0", "-1", "x", "99999", ""])
async def test_a_value_out_of_range_is_refused_and_the_old_one_stays(value: str) -> None:
    case = Case()
    case.take(told(1, "3"))
    with logged() as lines:
        answer = case.take(told(2, value))
    assert isinstance(answer, Refused)
    assert NAME in answer.text
    (line,) = lines
    assert (line["event"], line["type"]) == ("request.refused", "Settings")
    assert line["link"] == case.link.id
    assert line["reason"] == answer.text
    assert line["expected"]
    assert line["remedy"]
    assert case.validity == timedelta(days=3)
    assert Case(case.files).validity == timedelta(days=3)


@pytest.mark.req("B8")
async def test_a_rogue_hub_cannot_pin_the_settings() -> None:
    case = Case()
    case.take(told(2**63 - 1, "9"))
    again = Case(case.files)
    assert again.take(told(7, "3")) == Done()
    assert again.validity == timedelta(days=3)
    honest = FakeChannel()
    case.take(told(7, "3"), honest)
    assert case.validity == timedelta(days=3)


async def test_a_hub_that_was_told_nothing_says_nothing() -> None:
    case = Case()
    case.take(told(3, "3"))
    case.take(Settings(revision=0, values={}), FakeChannel())
    assert case.validity == timedelta(days=3)
    assert case.changes == 1


async def test_of_what_is_told_the_known_is_kept() -> None:
    case = Case()
    case.take(Settings(revision=1, values={"another": "text", NAME: "3"}))
    assert case.settings.message == told(1, "3")
    assert case.validity == timedelta(days=3)


async def test_nobody_writes_what_the_next_start_does_not_read() -> None:
    case = Case()
    many = {f"name-{n}": "v" * 4096 for n in range(255)}
    assert case.take(Settings(revision=1, values={**many, NAME: "3"})) == Done()
    assert Case(case.files).validity == timedelta(days=3)


@pytest.mark.parametrize("failure", [Failure.BEFORE, Failure.MIDDLE, Failure.AFTER])
async def test_a_crash_leaves_the_old_or_the_new(failure: Failure) -> None:
    case = Case()
    case.take(told(1, "3"))
    case.files.fail(1, failure, crash=True)
    with pytest.raises(Crash):
        case.take(told(2, "5"))
    assert case.validity == timedelta(days=3), "what is not kept is not acted on"
    expected = 5 if failure is Failure.AFTER else 3
    assert Case(case.files).validity == timedelta(days=expected)


@pytest.mark.parametrize(
    "data",
    [b"", b"{}", b"[1]", b'[1,{"pki_client_tls_key_duration_days":"x"}]', b'["1",{}]'],
)
async def test_a_damaged_file_is_named_with_a_way_out(data: bytes) -> None:
    files = MemoryFiles()
    files.content[PATH] = data
    with pytest.raises(StateError, match="damaged") as caught:
        Case(files)
    assert "remove it" in caught.value.hint
