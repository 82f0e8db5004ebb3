"""Imports every module of the client that openapi-python-client generates. Checks that it has all types and operations."""

import importlib
import json
import pkgutil
import re
import sys
from pathlib import Path

output = Path(sys.argv[1])
sys.path.insert(0, str(output))
expected = json.loads((output / "expected.json").read_text())

package = importlib.import_module("ridewire_api")
modules = [module.name for module in pkgutil.walk_packages(package.__path__, "ridewire_api.")]
for module in modules:
    importlib.import_module(module)
models = importlib.import_module("ridewire_api.models")

missing = [name for name in expected["schemas"] if not hasattr(models, name)]
assert not missing, f"types missing in the client: {missing}"

snake = lambda name: re.sub(r"(?<!^)(?=[A-Z])", "_", name).lower()
found = {module.rpartition(".")[2]: module for module in modules if module.startswith("ridewire_api.api.")}
missing = [name for name in expected["operations"] if snake(name) not in found]
assert not missing, f"operations missing in the client: {missing}"
for name in expected["operations"]:
    assert callable(importlib.import_module(found[snake(name)]).sync_detailed), name

# A message round-trips through the client's type.
message = models.Message.from_dict(expected["message"])
assert message.sender_id == expected["message"]["senderId"]
written = message.to_dict()
assert {**written, "createdAt": None} == {**expected["message"], "createdAt": None}, written

print(f"{len(expected['schemas'])} types and {len(expected['operations'])} operations")
