"""A set of ids that stores numbers as bits: Wikipedia's pages and DPR's passages are numbered."""

_DIGITS = 9  # a set of all numbers of nine digits takes 125 MB


class Ids:
    """A set of ids: one bit for each number up to the greatest, a string for each other id."""

    def __init__(self) -> None:
        self._bits = bytearray()
        self._others: set[str] = set()

    def __contains__(self, id: str) -> bool:
        if not is_number(id):
            return id in self._others
        at, bit = divmod(int(id), 8)
        return at < len(self._bits) and bool(self._bits[at] >> bit & 1)

    def add(self, id: str) -> bool:
        """Add an id; returns whether it is new."""
        # As in `is_number`, which is not called: there may be millions of ids.
        if len(id) > _DIGITS or not (id.isdigit() and id.isascii()) or (id < "1" and len(id) > 1):
            known = len(self._others)
            self._others.add(id)
            return len(self._others) > known
        number, bits = int(id), self._bits
        at, bit = number >> 3, 1 << (number & 7)
        try:
            there = bits[at]
        except IndexError:
            bits.extend(bytes(at + at // 8 + 1 - len(bits)))  # more than needed, as growing copies
            there = 0
        bits[at] = there | bit
        return not there & bit


def is_number(id: str) -> bool:
    """Whether an id is a number in the digits 0 to 9 without leading zeros, of at most nine."""
    return len(id) <= _DIGITS and id.isdigit() and id.isascii() and (id[0] != "0" or len(id) == 1)
