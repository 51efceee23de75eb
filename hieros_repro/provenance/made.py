"""When, where and with which code and packages something was made: told beside it, and no part of what it is."""

import datetime
from collections.abc import Sequence
from typing import Any

from hieros_repro.provenance.code import code
from hieros_repro.provenance.machine import machine, packages


def made(plugins: Sequence[str] = ()) -> dict[str, Any]:
    created = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    return {"created": created, "code": code(plugins), "machine": machine(), "packages": packages()}
