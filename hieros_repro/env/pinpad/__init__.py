"""PinPad, exact, fast and restorable: `single` for Gymnasium, `native` for many at once, `adapter` for configurations.

Importing this registers hieros/PinPad-<layout>-v0 and hieros/PinPadEasy-<layout>-v0.
"""

import gymnasium

from hieros_repro.env.pinpad.layout import MAPS
from hieros_repro.env.pinpad.single import PinPad, PinPadEasy

__all__ = ["PinPad", "PinPadEasy"]

for _task in MAPS:
    for _class in (PinPad, PinPadEasy):
        _entry_point = f"hieros_repro.env.pinpad.single:{_class.__name__}"
        gymnasium.register(f"hieros/{_class.__name__}-{_task}-v0", _entry_point, kwargs={"task": _task})
