from protocol.limits import (
    MAX_CERTIFICATE,
    MAX_CHAIN,
    MAX_CREDENTIALS,
    MAX_ENTRIES,
    MAX_ENTRY,
    MAX_HEAD,
    MAX_NAME,
    MAX_ROWS,
    MAX_SETTINGS,
    MAX_TEXT,
    MAX_VALUE,
    Limits,
)


def test_numbers_do_not_move() -> None:
    # A peer of another version sends up to them. Those of frames are in docs/spec/frame.md.
    assert (MAX_TEXT, MAX_NAME, MAX_VALUE) == (512, 255, 4096)
    assert (MAX_ENTRY, MAX_HEAD, MAX_CERTIFICATE) == (16_384, 16_384, 4096)
    assert (MAX_SETTINGS, MAX_ENTRIES, MAX_ROWS) == (256, 1024, 1000)
    assert (MAX_CHAIN, MAX_CREDENTIALS) == (4, 8)
    assert (Limits().handshake, Limits().send_high_water) == (32_768, 262_144)
