"""Settings that a server told: kept, newer ones believed, wrong ones refused."""

from datetime import timedelta
from pathlib import Path

import pytest

from agents.member.shared_settings import SharedSettings
from agents.runtime import logs
from agents.runtime.errors import StateError
from pki.certificates import Kind
from protocol.messages import Done, Refused, Settings
from tests.support.files import Crash, Failure, MemoryFiles

PATH = Path("/state/settings.json")
NAME = "pki_client_tls_key_duration_days"


class Case:
    def __init__(self, files: MemoryFiles | None = None) -> None:
        self.files = files or MemoryFiles()
        self.changes = 0
        self.settings = SharedSettings(PATH, self.files, logs.get_logger(), self.changed)

    def changed(self) -> None:
        self.changes += 1

    @property
    def validity(self) -> timedelta:
        return self.settings.policies()[Kind.CLIENT_TLS].validity


def told(revision: int, days: str) -> Settings:
    return Settings(revision=revision, values={NAME: days})


def test_the_defaults_until_something_is_told() -> None:
    assert Case().validity == timedelta(days=7)


@pytest.mark.req("B8")
def test_what_is_told_acts_at_once() -> None:
    case = Case()
    assert case.settings.take(told(1, "3")) == Done()
    assert case.validity == timedelta(days=3)
    assert case.changes == 1


@pytest.mark.req("B8")
def test_the_next_start_acts_by_what_was_told_last() -> None:
    case = Case()
    case.settings.take(told(1, "3"))
    again = Case(case.files)
    assert again.validity == timedelta(days=3)
    assert again.settings.message == told(1, "3")


def test_an_old_message_changes_nothing() -> None:
    case = Case()
    case.settings.take(told(5, "3"))
    assert case.settings.take(told(4, "9")) == Done()
    assert case.validity == timedelta(days=3)
    assert case.changes == 1


@pytest.mark.parametrize("value", ["0", "-1", "x", "99999", ""])
def test_a_value_out_of_range_is_refused_and_the_old_one_stays(value: str) -> None:
    case = Case()
    case.settings.take(told(1, "3"))
    answer = case.settings.take(told(2, value))
    assert isinstance(answer, Refused)
    assert NAME in answer.text
    assert case.validity == timedelta(days=3)
    assert Case(case.files).validity == timedelta(days=3)


def test_settings_of_others_are_handed_on_and_not_acted_on() -> None:
    case = Case()
    message = Settings(revision=1, values={"another": "text"})
    case.settings.take(message)
    assert case.settings.message == message
    assert case.validity == timedelta(days=7)


@pytest.mark.parametrize("failure", [Failure.BEFORE, Failure.MIDDLE, Failure.AFTER])
def test_a_crash_leaves_the_old_or_the_new(failure: Failure) -> None:
    case = Case()
    case.settings.take(told(1, "3"))
    case.files.fail(1, failure, crash=True)
    with pytest.raises(Crash):
        case.settings.take(told(2, "5"))
    assert case.validity == timedelta(days=3), "what is not kept is not acted on"
    expected = 5 if failure is Failure.AFTER else 3
    assert Case(case.files).validity == timedelta(days=expected)


@pytest.mark.parametrize(
    "data",
    [b"", b"{}", b"[1]", b'[1,{"pki_client_tls_key_duration_days":"x"}]', b'["1",{}]'],
)
def test_a_damaged_file_is_named_with_a_way_out(data: bytes) -> None:
    files = MemoryFiles()
    files.content[PATH] = data
    with pytest.raises(StateError, match="damaged") as caught:
        Case(files)
    assert "remove it" in caught.value.hint
