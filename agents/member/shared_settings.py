"""The deployment's settings as a server has told them: what hubs and zone servers act by.

Kept in a file, so that a zone server that is started without its hub issues by the last
settings it was told. What counts is what the present link says: a revision below another *of
the same link* is an old message and changes nothing, and one of an earlier link is forgotten
with it, so that nobody can pin the settings by a revision that is above all others. Revision 0
is of one that was told nothing itself, and says nothing.

Of what is told, the settings that we know are kept, and no more: a file of ours can always be
read at the next start.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from weakref import WeakKeyDictionary

import msgspec

from agents.runtime.channel import Channel
from agents.runtime.errors import MissingError, StateError
from agents.runtime.files import Files
from agents.runtime.inbox import say_refused
from agents.runtime.logs import Logger
from pki import rotation
from pki.certificates import Kind
from pki.errors import MalformedError
from pki.rotation import Policy
from protocol.messages import Done, Refused, Settings

__all__ = ["SharedSettings", "known_settings"]

EXPECTED = "values that a server accepts from its administrator"
MAX_FILE = 64 << 10
MAX_VALUE = 64
"""Characters of a value; a number of hours or days has a few."""


def known_settings(values: Mapping[str, str]) -> dict[str, str]:
    """Those of the settings that we know, of a length that makes sense."""
    return {
        name: values[name]
        for name in rotation.SETTINGS
        if name in values and len(values[name]) <= MAX_VALUE
    }


class SharedSettings:
    """The last settings told, and the policies that follow from them.

    Args:
        path: where they are kept.
        changed: called after each change.
    """

    def __init__(self, path: Path, files: Files, log: Logger, changed: Callable[[], None]) -> None:
        self._path = path
        self._files = files
        self._log = log
        self._changed = changed
        self.message = self._read()
        self._policies = _policies(self.message.values)
        self._heard: WeakKeyDictionary[Channel, int] = WeakKeyDictionary()

    def policies(self) -> Mapping[Kind, Policy]:
        """The rotation policy of each kind."""
        return self._policies

    def take(self, channel: Channel, message: Settings) -> Done | Refused:
        """Act by these from now on; kept on return.

        Raises:
            StateError: they cannot be kept; those before stay in force.
        """
        if message.revision < max(self._heard.get(channel, 1), 1):
            return Done()
        try:
            policies = _policies(message.values)
        except MalformedError as exc:
            refused = Refused(reason="settings", text=str(exc))
            say_refused(channel.log, channel, message, refused, expected=EXPECTED)
            return refused
        values = known_settings(message.values)
        if values != self.message.values:
            self._files.write_atomic(self._path, msgspec.json.encode([message.revision, values]))
            self._log.info("settings.told", revision=message.revision)
        self._heard[channel] = message.revision
        self.message = Settings(revision=message.revision, values=values)
        self._policies = policies
        self._changed()
        return Done()

    def _read(self) -> Settings:
        try:
            data = self._files.read_file(self._path, MAX_FILE)
            kept = msgspec.json.decode(data, type=tuple[int, dict[str, str]])
            message = msgspec.convert({"revision": kept[0], "values": kept[1]}, Settings)
            _policies(message.values)
        except MissingError:
            return Settings(revision=0, values={})
        except (msgspec.MsgspecError, MalformedError, UnicodeDecodeError, RecursionError) as exc:
            raise StateError(
                f"{self._path} is damaged: {exc}", hint="remove it: the server tells it again"
            ) from exc
        return message


def _policies(values: Mapping[str, str]) -> Mapping[Kind, Policy]:
    told = {
        name: rotation.parse_setting(name, value)
        for name, value in values.items()
        if name in rotation.SETTINGS
    }
    return rotation.policies({**rotation.SETTINGS, **told})[0]
