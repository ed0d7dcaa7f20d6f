"""Names: one text for each, and no other text is one."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pki.errors import MalformedError
from pki.names import Name, Role

DEPLOYMENT = "000102030405060708090a0b0c0d0e0f"
ID = "f0f1f2f3f4f5f6f7f8f9fafbfcfdfeff"
GOOD = f"anchorline://{DEPLOYMENT}/zone-server/{ID}"

names = st.builds(
    Name,
    st.binary(min_size=16, max_size=16),
    st.sampled_from(Role),
    st.binary(min_size=16, max_size=16),
)


@given(names)
def test_a_name_is_read_as_it_was_written(name: Name) -> None:
    assert Name.parse(name.uri) == name


def test_the_text_of_a_name() -> None:
    name = Name(bytes.fromhex(DEPLOYMENT), Role.ZONE_SERVER, bytes.fromhex(ID))
    assert name.uri == GOOD


@given(names, names)
def test_two_names_have_two_texts(one: Name, other: Name) -> None:
    assert (one == other) == (one.uri == other.uri)


@pytest.mark.parametrize(
    "uri",
    [
        pytest.param("", id="nothing"),
        pytest.param(GOOD.upper(), id="upper case"),
        pytest.param(GOOD.replace("f0f1", "F0F1"), id="upper-case digits"),
        pytest.param(GOOD.replace("zone-server", "root"), id="a role that nobody has"),
        pytest.param(GOOD.replace("zone-server", ""), id="no role"),
        pytest.param(GOOD.replace("anchorline", "https"), id="another scheme"),
        pytest.param(GOOD[:-1], id="a digit less"),
        pytest.param(GOOD + "0", id="a digit more"),
        pytest.param(GOOD + "/", id="a slash after it"),
        pytest.param(GOOD + "\n", id="a line end after it"),
        pytest.param(" " + GOOD, id="a space before it"),
        pytest.param(GOOD + "?role=server", id="a query"),
        pytest.param(GOOD.replace("://", "://user@"), id="a user"),
        pytest.param(GOOD.replace("zone-server", "client/../server"), id="a path that turns"),
        pytest.param(GOOD.replace("0001", "%30001"), id="an escaped digit"),
        pytest.param(GOOD.replace("0001", "\u0660001"), id="a digit of another script"),
    ],
)
def test_another_spelling_is_no_name(uri: str) -> None:
    with pytest.raises(MalformedError):
        Name.parse(uri)


@given(st.text(max_size=120))
def test_any_text_is_a_name_or_malformed(text: str) -> None:
    try:
        name = Name.parse(text)
    except MalformedError:
        return
    assert name.uri == text


@pytest.mark.parametrize(("deployment", "id"), [(b"", bytes(16)), (bytes(16), bytes(17))])
def test_parts_have_sixteen_bytes(deployment: bytes, id: bytes) -> None:
    with pytest.raises(ValueError, match="expected 16 and 16"):
        Name(deployment, Role.CLIENT, id)


@pytest.mark.parametrize("role", Role)
def test_a_role_and_its_text_are_one_key(role: Role) -> None:
    assert {role.value: 1}[role] == 1
    assert {role: 1}[role.value] == 1  # type: ignore[index]  # as settings and messages have it
