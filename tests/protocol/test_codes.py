from protocol.codes import EXPLANATIONS, CloseCode


def test_each_code_is_explained_and_numbers_do_not_move() -> None:
    assert set(EXPLANATIONS) == set(CloseCode)
    # Numbers are for ever: a peer of another version reads them.
    assert {code.name: int(code) for code in CloseCode} == {
        "NORMAL": 0,
        "GOING_AWAY": 1,
        "SUPERSEDED": 2,
        "LOST": 3,
        "PROTOCOL_ERROR": 16,
        "FRAME_TOO_LARGE": 17,
        "UNKNOWN_FRAME": 18,
        "NOT_ALLOWED": 19,
        "WRONG_VERSION": 20,
        "HANDSHAKE_TIMEOUT": 21,
        "IDLE_TIMEOUT": 22,
        "UNTRUSTED": 32,
        "EXPIRED": 33,
        "CLOCK": 34,
        "REVOKED": 35,
        "WRONG_ROLE": 36,
        "TRUST_CHANGED": 37,
        "RETRY_AFTER": 48,
        "INTERNAL": 49,
    }
