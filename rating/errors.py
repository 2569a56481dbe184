"""Everything rating can refuse, as one tree.

RatingError                 whatever rating refuses
├── TariffError             an OCPI Tariff object that can't be read: where, what was expected, what was found
├── SheetError              a tariff that was read but can't be compiled for a zone
├── SessionError            a session, CDR or case that can't be rated as it stands
└── BoundsError             quantities so large that 64-bit money could overflow
"""


class RatingError(Exception):
    """Whatever rating refuses; its message says what, where and what to do."""


class TariffError(RatingError):
    """An OCPI Tariff object that can't be read.

    `path` is the JSON path of the field ("$.elements[0].restrictions.start_time").
    """

    def __init__(self, path: str, expected: str, found: object) -> None:
        """Keep the three facts apart, so that a door can show them as it likes."""
        super().__init__(f"{path}: expected {expected}, found {_shown(found)}")
        self.path = path
        self.expected = expected
        self.found = found


class SheetError(RatingError):
    """A tariff that was read but can't be compiled: an unknown zone, too many tax rates."""


class SessionError(RatingError):
    """A session, CDR or case that can't be rated as it stands."""


class BoundsError(RatingError):
    """Quantities so large that 64-bit money could overflow; nothing was rated."""


def _shown(found: object) -> str:
    text = "nothing" if found is None else repr(found)
    return text if len(text) <= 80 else text[:77] + "..."
