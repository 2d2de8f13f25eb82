"""How a command ends: its exit code, and what it says then.

0 done · 1 what was asked did not hold · 2 the operator's input · 3 the device or the
server did not answer. What went wrong is said on stderr.
"""

from __future__ import annotations

import sys
from typing import NoReturn

DID_NOT_HOLD, OPERATOR, NO_ANSWER = 1, 2, 3


def fail(text: str, code: int) -> NoReturn:
    print(text, file=sys.stderr)
    sys.exit(code)
