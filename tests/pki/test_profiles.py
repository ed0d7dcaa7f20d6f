"""The forms of the seven kinds: who stands under whom, and who may do what."""

import pytest
from cryptography.x509.oid import ExtendedKeyUsageOID

from pki.names import Role
from pki.profiles import KIND_OF_ROLE, PROFILES, Kind

CAS = {Kind.ROOT: 1, Kind.CLIENT_CA: 0}
TLS = {Kind.SERVER_TLS, Kind.HUB_TLS, Kind.ZONE_SERVER_TLS, Kind.CLIENT_TLS}


@pytest.mark.req("A5")
def test_the_root_signs_everything_but_clients() -> None:
    under_root = {kind for kind, profile in PROFILES.items() if profile.issuer is Kind.ROOT}
    assert under_root == set(Kind) - {Kind.CLIENT_TLS}
    assert PROFILES[Kind.CLIENT_TLS].issuer is Kind.CLIENT_CA


@pytest.mark.parametrize("kind", Kind)
def test_path_length_and_usage(kind: Kind) -> None:
    profile = PROFILES[kind]
    assert profile.path_length == CAS.get(kind)
    assert profile.is_ca == profile.key_usage.key_cert_sign == (kind in CAS)
    assert profile.constraints.ca == profile.is_ca


@pytest.mark.parametrize("kind", Kind)
def test_only_tls_keys_serve_at_both_ends_of_a_link(kind: Kind) -> None:
    usages = list(PROFILES[kind].extended or [])
    both = [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]
    if kind in TLS | {Kind.CLIENT_CA}:
        assert usages == both
    else:
        assert not set(usages) & set(both)


def test_a_role_has_one_kind() -> None:
    assert len(KIND_OF_ROLE) == len(PROFILES) == len(Kind)
    assert {role for role in KIND_OF_ROLE if role} == set(Role)
