"""Rotation: the twelve settings and their rules, and when a certificate is renewed."""

from datetime import datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pki import rotation
from pki.certificates import BACKDATE, Kind
from pki.errors import MalformedError
from pki.keys import KeyId
from pki.rotation import (
    HOUR,
    MAX_DAYS,
    MAX_HOURS,
    SETTINGS,
    Held,
    Obtain,
    Policy,
    Raise,
    Wait,
    next_step,
    parse_setting,
    policies,
    renewal_time,
    root_age_warning,
    too_soon,
)
from tests.pki.hierarchy import DAY, ISSUED, NOW

ID = bytes(range(16))
VECTOR = 0.2893382121815926
"""SHA-256 of 000102..0f0102, its first 53 bits as a fraction."""
OLD, NEW = KeyId(bytes(32)), KeyId(b"\1" * 32)

DURATIONS = {
    Kind.SERVER_TLS: "pki_server_tls_key_duration_days",
    Kind.MESSAGE_SIGNING: "pki_message_signing_key_duration_days",
    Kind.HUB_TLS: "pki_hub_tls_key_duration_days",
    Kind.ZONE_SERVER_TLS: "pki_zoneserver_tls_key_duration_days",
    Kind.CLIENT_CA: "pki_client_tls_ca_key_duration_days",
    Kind.CLIENT_TLS: "pki_client_tls_key_duration_days",
}
WINDOWS = {
    Kind.SERVER_TLS: "pki_server_tls_key_renewal_window_hours",
    Kind.MESSAGE_SIGNING: "pki_message_signing_key_renewal_window_hours",
    Kind.HUB_TLS: "pki_hub_tls_key_renewal_window_hours",
    Kind.ZONE_SERVER_TLS: "pki_zoneserver_tls_key_renewal_window_hours",
    Kind.CLIENT_CA: "pki_client_tls_ca_key_renewal_window_hours",
    Kind.CLIENT_TLS: "PKIClientTLSKeyRenewalWindowHours",
}

values = st.fixed_dictionaries(
    {
        **{name: st.integers(1, MAX_DAYS) for name in DURATIONS.values()},
        **{name: st.integers(1, MAX_HOURS) for name in WINDOWS.values()},
    }
)
kinds = st.sampled_from(ISSUED)


class TestSettings:
    @pytest.mark.req("B8")
    def test_the_twelve_of_table_1(self) -> None:
        assert dict(SETTINGS) == {
            "pki_server_tls_key_duration_days": 60,
            "pki_server_tls_key_renewal_window_hours": 4,
            "pki_message_signing_key_duration_days": 180,
            "pki_message_signing_key_renewal_window_hours": 4,
            "pki_hub_tls_key_duration_days": 60,
            "pki_hub_tls_key_renewal_window_hours": 4,
            "pki_zoneserver_tls_key_duration_days": 60,
            "pki_zoneserver_tls_key_renewal_window_hours": 4,
            "pki_client_tls_ca_key_duration_days": 180,
            "pki_client_tls_ca_key_renewal_window_hours": 168,
            "pki_client_tls_key_duration_days": 7,
            "PKIClientTLSKeyRenewalWindowHours": 4,
        }

    @pytest.mark.req("B8")
    def test_defaults_need_no_raise(self) -> None:
        found, raises = policies({})
        assert raises == []
        assert found == policies(SETTINGS)[0]
        assert set(found) == set(ISSUED)
        assert found[Kind.CLIENT_TLS] == Policy(7 * DAY, 4 * HOUR)
        assert found[Kind.CLIENT_CA] == Policy(180 * DAY, 168 * HOUR)

    @pytest.mark.req("B8")
    @pytest.mark.parametrize("kind", ISSUED)
    def test_each_setting_acts_on_its_own_kind(self, kind: Kind) -> None:
        changed, raises = policies({DURATIONS[kind]: 20, WINDOWS[kind]: 200})
        default, _ = policies({})
        assert changed[kind] == Policy(20 * DAY, 200 * HOUR)
        others = set(ISSUED) - {kind}
        if kind is Kind.CLIENT_TLS:  # 20 days are more than the CA's window: A13
            others -= {Kind.CLIENT_CA}
            assert [one.setting for one in raises] == [WINDOWS[Kind.CLIENT_CA]]
        else:
            assert raises == []
        assert all(changed[other] == default[other] for other in others)

    @pytest.mark.req("B8")
    @pytest.mark.parametrize(
        ("days", "hours", "effective"),
        [
            pytest.param(2, 47, None, id="exceeds by exactly an hour"),
            pytest.param(2, 46, None, id="exceeds by more"),
            pytest.param(2, 48, "2 days 1 hour", id="equal"),
            pytest.param(1, 48, "2 days 1 hour", id="shorter"),
            pytest.param(1, 47, "2 days", id="raised to whole days"),
        ],
    )
    def test_a_validity_exceeds_its_window_by_an_hour(
        self, days: int, hours: int, effective: str | None
    ) -> None:
        name = DURATIONS[Kind.HUB_TLS]
        found, raises = policies({name: days, WINDOWS[Kind.HUB_TLS]: hours})
        if effective is None:
            assert (found[Kind.HUB_TLS].validity, raises) == (days * DAY, [])
            return
        assert found[Kind.HUB_TLS].validity == (hours + 1) * HOUR
        [raised] = raises
        asked = "1 day" if days == 1 else f"{days} days"
        assert (raised.setting, raised.asked, raised.effective) == (name, asked, effective)
        assert raised.why

    @pytest.mark.req("A13")
    def test_a_ca_window_shorter_than_the_client_validity_is_raised(self) -> None:
        found, raises = policies({DURATIONS[Kind.CLIENT_TLS]: 30})
        assert found[Kind.CLIENT_CA] == Policy(180 * DAY, 30 * DAY)
        assert [(one.setting, one.asked, one.effective) for one in raises] == [
            (WINDOWS[Kind.CLIENT_CA], "168 hours", "720 hours")
        ]

    @pytest.mark.req("A13")
    def test_the_ca_follows_a_client_validity_that_was_itself_raised(self) -> None:
        found, raises = policies(
            {
                DURATIONS[Kind.CLIENT_TLS]: 1,
                WINDOWS[Kind.CLIENT_TLS]: 240,
                DURATIONS[Kind.CLIENT_CA]: 5,
            }
        )
        assert found[Kind.CLIENT_TLS] == Policy(241 * HOUR, 240 * HOUR)
        assert found[Kind.CLIENT_CA] == Policy(242 * HOUR, 241 * HOUR)
        assert [one.setting for one in raises] == [
            DURATIONS[Kind.CLIENT_TLS],
            WINDOWS[Kind.CLIENT_CA],
            DURATIONS[Kind.CLIENT_CA],
        ]

    @pytest.mark.req("A13", "B8")
    @given(values)
    def test_whatever_is_set_the_rules_hold(self, settings: dict[str, int]) -> None:
        found, raises = policies(settings)
        raised = {one.setting for one in raises}
        assert len(raised) == len(raises)
        for kind, policy in found.items():
            assert policy.validity >= policy.window + HOUR
            asked = settings[DURATIONS[kind]] * DAY
            assert (policy.validity > asked) == (DURATIONS[kind] in raised)
            assert policy.validity >= asked
            assert (policy.window > settings[WINDOWS[kind]] * HOUR) == (WINDOWS[kind] in raised)
        assert found[Kind.CLIENT_CA].window >= found[Kind.CLIENT_TLS].validity

    def test_other_names_are_ignored(self) -> None:
        assert policies({"log_level": 3}) == policies({})

    def test_a_raise_is_a_value(self) -> None:
        assert len({Raise("a", "1 day", "2 days", "b"), Raise("a", "1 day", "2 days", "b")}) == 1

    @pytest.mark.parametrize("name", SETTINGS)
    def test_a_value_within_its_bounds(self, name: str) -> None:
        most = MAX_HOURS if name.lower().endswith("hours") else MAX_DAYS
        assert parse_setting(name, "1") == 1
        assert parse_setting(name, str(most)) == most
        with pytest.raises(MalformedError, match=f"from 1 to {most}, got"):
            parse_setting(name, str(most + 1))

    @pytest.mark.parametrize(
        "text",
        [
            "",
            "0",
            "-1",
            "+1",
            "1.5",
            " 7",
            "7 ",
            "7d",
            "seven",
            "1e2",
            "\u0667",
            "\u00b2",
            "9" * 99,
        ],
    )
    def test_a_value_that_is_none(self, text: str) -> None:
        with pytest.raises(MalformedError, match="whole number of days from 1 to 3650"):
            parse_setting("pki_client_tls_key_duration_days", text)

    @pytest.mark.parametrize("name", ["", "pki_client_tls_key_renewal_window_hours", "x" * 999])
    def test_a_name_that_is_none(self, name: str) -> None:
        with pytest.raises(MalformedError, match="no rotation setting") as raised:
            parse_setting(name, "1")
        assert len(str(raised.value)) < 120


class TestRenewalTime:
    @pytest.mark.req("B13")
    @given(st.binary(min_size=16, max_size=16), st.integers(1, 2**159 - 1), st.integers(1, 9000))
    def test_it_is_in_the_first_half_of_the_window(
        self, id: bytes, serial: int, hours: int
    ) -> None:
        window = hours * HOUR
        date = renewal_time(NOW, window, id, serial, spread=True)
        assert NOW - window <= date <= NOW - window / 2
        assert date == renewal_time(NOW, window, id, serial, spread=True)

    @pytest.mark.req("B13")
    def test_a_client_ca_is_not_spread(self) -> None:
        assert renewal_time(NOW, 7 * DAY, ID, 5, spread=False) == NOW - 7 * DAY

    @pytest.mark.req("B13")
    def test_a_fleet_is_spread_evenly(self) -> None:
        window = 4 * HOUR
        buckets = [0] * 8
        for number in range(4000):
            id = number.to_bytes(16)
            part = (renewal_time(NOW, window, id, 7, spread=True) - (NOW - window)) / (window / 2)
            buckets[int(part * len(buckets))] += 1
        # 500 are expected in each; five standard deviations are 105.
        assert all(395 <= count <= 605 for count in buckets), buckets

    @pytest.mark.req("B13")
    def test_it_is_drawn_from_id_and_serial_number(self) -> None:
        date = renewal_time(NOW, 4 * HOUR, ID, 0x0102, spread=True)
        assert date == NOW - 4 * HOUR + 2 * HOUR * VECTOR
        assert renewal_time(NOW, 4 * HOUR, ID, 0x0103, spread=True) != date
        assert renewal_time(NOW, 4 * HOUR, bytes(16), 0x0102, spread=True) != date


def held(
    kind: Kind = Kind.CLIENT_TLS,
    *,
    age: timedelta = timedelta(0),
    left: timedelta = 7 * DAY,
    serial: int = 77,
    root: KeyId = NEW,
) -> Held:
    """A certificate issued `age` ago that ends in `left`."""
    return Held(kind, NOW - age - BACKDATE, NOW + left, serial, root)


def step(
    current: Held | None,
    *,
    now: datetime = NOW,
    window: timedelta = 4 * HOUR,
    not_before: datetime | None = None,
) -> Wait | Obtain:
    return next_step(
        current,
        policy=Policy(7 * DAY, window),
        now=now,
        newest_root=NEW,
        holder_id=ID,
        not_before=not_before,
    )


class TestNextStep:
    def test_without_a_certificate_one_is_obtained(self) -> None:
        assert step(None) == Obtain("first")
        assert step(None, not_before=NOW + DAY) == Obtain("first")

    @pytest.mark.req("B15")
    @pytest.mark.parametrize("root", [OLD, NEW])
    @pytest.mark.parametrize("ago", [timedelta(0), 30 * DAY, 3000 * DAY])
    def test_an_expired_one_is_replaced_at_once(self, root: KeyId, ago: timedelta) -> None:
        expired = held(age=7 * DAY, left=-ago, root=root)
        assert step(expired, not_before=NOW + DAY) == Obtain("expired")

    def test_one_that_a_clock_ahead_has_issued_is_replaced_when_the_clock_is_right(self) -> None:
        ahead = held(age=-3650 * DAY, left=3710 * DAY, root=NEW)
        assert step(ahead) == Obtain("clock")

    @pytest.mark.req("B7", "B13")
    def test_it_waits_for_its_date_and_not_longer(self) -> None:
        current = held()
        date = renewal_time(current.not_after, 4 * HOUR, ID, current.serial, spread=True)
        assert step(current) == Wait(date)
        assert step(current, now=date - timedelta(microseconds=1)) == Wait(date)
        assert step(current, now=date) == Obtain("window")
        assert step(current, now=date + HOUR) == Obtain("window")

    @pytest.mark.req("B13")
    def test_a_client_ca_is_renewed_when_its_window_opens(self) -> None:
        current = held(Kind.CLIENT_CA, left=180 * DAY)
        assert step(current, window=168 * HOUR) == Wait(NOW + 173 * DAY)
        assert step(current, window=168 * HOUR, now=NOW + 173 * DAY) == Obtain("window")

    @pytest.mark.req("B7")
    def test_a_newer_root_is_followed_at_once_or_at_the_drawn_date(self) -> None:
        current = held(root=OLD)
        later = NOW + HOUR
        assert step(current) == Obtain("older root")
        assert step(current, not_before=NOW) == Obtain("older root")
        assert step(current, not_before=later) == Wait(later)
        assert step(current, not_before=later, now=later) == Obtain("older root")

    def test_an_ordinary_renewal_is_not_put_off_by_a_newer_root(self) -> None:
        current = held(left=2 * HOUR, age=5 * DAY, root=OLD)
        assert step(current, not_before=NOW + HOUR) == Obtain("window")

    @pytest.mark.req("B8")
    def test_a_change_of_the_window_acts_on_what_is_already_issued(self) -> None:
        current = held(age=2 * DAY, left=5 * DAY)
        assert isinstance(step(current, window=4 * HOUR), Wait)
        assert step(current, window=14 * DAY) == Obtain("window")

    @pytest.mark.req("B8")
    def test_no_schedule_renews_within_an_hour(self) -> None:
        # A window longer than the life of the certificate is always open.
        current = held(left=6 * HOUR)
        assert step(current, window=14 * DAY) == Wait(NOW + HOUR)
        almost = NOW + HOUR - timedelta(seconds=1)
        assert step(current, window=14 * DAY, now=almost) == Wait(NOW + HOUR)
        assert step(current, window=14 * DAY, now=NOW + HOUR) == Obtain("window")

    def test_the_hour_does_not_outlast_the_certificate(self) -> None:
        current = held(left=HOUR / 2)
        assert step(current) == Wait(current.not_after)

    @pytest.mark.req("B8")
    @given(kinds, values, st.integers(1, 2**120), st.integers(0, 2 * 86_400))
    def test_renewed_for_ever_it_never_expires_nor_rotates_twice_an_hour(
        self, kind: Kind, settings: dict[str, int], serial: int, late: int
    ) -> None:
        # Issue, wait, be late by less than half a window, issue again: as the fleet does.
        policy = policies(settings)[0][kind]
        now = NOW
        for number in range(6):
            current = Held(kind, now - BACKDATE, now + policy.validity, serial + number, NEW)
            found = next_step(current, policy=policy, now=now, newest_root=NEW, holder_id=ID)
            assert isinstance(found, Wait)
            assert now + HOUR <= found.until < current.not_after
            delay = min(timedelta(seconds=late), policy.window / 2 - timedelta(seconds=1))
            now = min(found.until + delay, current.not_after - timedelta(seconds=1))
            again = next_step(current, policy=policy, now=now, newest_root=NEW, holder_id=ID)
            assert again == Obtain("window")

    @given(
        kinds,
        st.integers(0, 400 * 24),
        st.integers(-24, 400 * 24),
        st.sampled_from([OLD, NEW]),
        st.none() | st.integers(-48, 48),
        st.integers(1, 500),
    )
    def test_a_wait_is_for_the_future_and_ends_in_an_act(
        self, kind: Kind, age: int, left: int, root: KeyId, moved: int | None, window: int
    ) -> None:
        current = held(kind, age=age * HOUR, left=left * HOUR, root=root)
        draw = None if moved is None else NOW + moved * HOUR
        found = step(current, window=window * HOUR, not_before=draw)
        if isinstance(found, Wait):
            assert NOW < found.until <= current.not_after
            then = step(current, window=window * HOUR, not_before=draw, now=found.until)
            assert isinstance(then, Obtain)


class TestRootAge:
    @pytest.mark.req("B16")
    def test_a_root_older_than_a_year_is_warned_about(self) -> None:
        assert root_age_warning(NOW, NOW + 365 * DAY) is None
        warning = root_age_warning(NOW, NOW + 366 * DAY)
        assert warning is not None
        assert "366 days old, more than 365" in warning

    @pytest.mark.req("B16")
    def test_another_root_within_half_a_year_is_asked_about(self) -> None:
        assert too_soon(NOW, NOW + 182 * DAY) is None
        why = too_soon(NOW, NOW + 181 * DAY)
        assert why is not None
        assert "181 days old" in why

    @pytest.mark.req("B16")
    def test_both_limits_are_settings(self) -> None:
        assert root_age_warning(NOW, NOW + 11 * DAY, 10 * DAY) is not None
        assert root_age_warning(NOW, NOW + 366 * DAY, 400 * DAY) is None
        assert too_soon(NOW, NOW + 11 * DAY, 10 * DAY) is None
        assert too_soon(NOW, NOW + 9 * DAY, 10 * DAY) is not None


@pytest.mark.parametrize("kind", ISSUED)
def test_the_kind_of_a_setting(kind: Kind) -> None:
    assert rotation.kind_of(DURATIONS[kind]) is rotation.kind_of(WINDOWS[kind]) is kind


def test_no_kind_of_another_setting() -> None:
    with pytest.raises(KeyError):
        rotation.kind_of("log_level")


def test_kind_and_setting_names_belong_together() -> None:
    assert set(SETTINGS) == {*DURATIONS.values(), *WINDOWS.values()}
    assert rotation.ROOT_YOUTH_LIMIT < rotation.ROOT_AGE_LIMIT
