"""What msgspec raises over bytes that it cannot read.

Only the first is its own: a text that is no UTF-8 and nesting without end come as Python's errors. One that was not
caught ended every worker that met such a record, again after every restart.
"""

from typing import Final

import msgspec

UNREADABLE: Final = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
