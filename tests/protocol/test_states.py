import re
from itertools import product

import pytest

import protocol.states
from protocol.errors import LocalProtocolError
from protocol.states import TRANSITIONS, State, Trigger, advance


@pytest.mark.parametrize(("state", "trigger"), list(product(State, Trigger)))
def test_what_the_table_does_not_name_cannot_happen(state: State, trigger: Trigger) -> None:
    target = TRANSITIONS[state].get(trigger)
    if target is None:
        with pytest.raises(LocalProtocolError, match=f"{trigger.name} cannot happen"):
            advance(state, trigger)
    else:
        assert advance(state, trigger) is target


def test_every_way_ends_and_none_leads_back() -> None:
    order = list(State)
    for state, row in TRANSITIONS.items():
        assert all(order.index(target) > order.index(state) for target in row.values())
        assert (Trigger.ENDED in row) is (state is not State.CLOSED)


def test_the_drawing_names_each_state_and_trigger() -> None:
    words = set(re.findall(r"[A-Z]{4,}", protocol.states.__doc__ or ""))
    assert words >= {state.name for state in State} | {trigger.name for trigger in Trigger}
