"""Argo CD's way of running the scripts of `manifests/argocd`, in a real Lua 5.1.

Argo CD (util/lua/lua.go of 3.6) gives a script the base functions, `table`, and `require("os")` with `date` and `time`
alone: no `string`, no `math`, no global `os`, no methods of strings. What a script gives back becomes JSON, in which an
empty table is an empty list; where the live object has a map, the map is kept. The difference to the live object is
sent as a merge patch.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import lupa.lua51

ROOT: Final = Path(__file__).parents[1]
SCRIPTS: Final = ROOT / "manifests" / "argocd" / "ModelDeployment"
VERBS: Final = ("abort", "approve", "pause", "resume", "retry")

_SANDBOX: Final = """
function(now)
  local date = os.date
  debug.setmetatable("", nil)
  local safe = {
    date = function(format) return date(format, now()) end,
    time = function() return now() end,
  }
  for _, name in ipairs({"string", "math", "io", "os", "debug", "coroutine", "python"}) do
    _G[name] = nil
    package.loaded[name] = nil
  end
  package.path, package.cpath = "", ""
  package.preload.os = function() return safe end
end
"""


class ArgoLua:
    """One interpreter without what Argo CD withholds; scripts share nothing but the object that they are given."""

    def __init__(self, now: Callable[[], int] = lambda: 1_767_268_800) -> None:
        """Args: now: seconds since 1970, for `os.date` and `os.time`."""
        self._lua = lupa.lua51.LuaRuntime(unpack_returned_tuples=True)
        self._lua.eval(_SANDBOX)(now)
        self._compiled: dict[Path, Any] = {}

    def run(self, script: Path, manifest: dict[str, Any]) -> Any:
        """Run a script on an object; gives what it returns, as JSON would."""
        if script not in self._compiled:
            self._compiled[script] = self.compile(script.read_text(encoding="utf-8"))
        self._lua.globals().obj = self._table(manifest)
        return _value(self._compiled[script]())

    def compile(self, text: str) -> Any:
        """Compile the text of a script to a function without arguments."""
        return self._lua.eval(f"function()\n{text}\nend")

    def health(self, manifest: dict[str, Any]) -> dict[str, Any]:
        """Give `status` and `message`."""
        found: dict[str, Any] = self.run(SCRIPTS / "health.lua", manifest)
        return found

    def enabled(self, manifest: dict[str, Any]) -> set[str]:
        """Give the actions that the user may click."""
        found = self.run(SCRIPTS / "actions" / "discovery.lua", manifest)
        assert set(found) == set(VERBS)
        return {name for name, action in found.items() if not action["disabled"]}

    def act(self, verb: str, manifest: dict[str, Any]) -> dict[str, Any]:
        """Give the merge patch that an action sends."""
        changed = self.run(SCRIPTS / "actions" / verb / "action.lua", manifest)
        return merge_patch(manifest, _kept_maps(changed, manifest))

    def _table(self, value: Any) -> Any:
        if isinstance(value, dict):
            return self._lua.table_from({name: self._table(item) for name, item in value.items()})
        if isinstance(value, list):
            return self._lua.table_from([self._table(item) for item in value])
        return value


def _value(value: Any) -> Any:
    if lupa.lua51.lua_type(value) != "table":
        return value
    items = dict(value.items())
    if set(items) == set(range(1, len(items) + 1)):
        return [_value(items[n]) for n in range(1, len(items) + 1)]
    return {name: _value(item) for name, item in items.items()}


def _kept_maps(new: Any, old: Any) -> Any:
    if new == [] and isinstance(old, dict):
        return old
    if isinstance(new, dict) and isinstance(old, dict):
        return {name: _kept_maps(item, old.get(name)) for name, item in new.items()}
    if isinstance(new, list) and isinstance(old, list):
        return [_kept_maps(*pair) for pair in zip(new, old, strict=True)]
    return new


def merge_patch(old: dict[str, Any], new: dict[str, Any]) -> dict[str, Any]:
    """Give the JSON merge patch from one object to another."""
    patch: dict[str, Any] = {name: None for name in old if name not in new}
    for name, value in new.items():
        before = old.get(name)
        if isinstance(value, dict) and isinstance(before, dict):
            if inner := merge_patch(before, value):
                patch[name] = inner
        elif value != before:
            patch[name] = value
    return patch
