"""Checks the identity vectors that Swift checks, too."""

import json
import sys
from pathlib import Path

here = Path(__file__).resolve()
sys.path.insert(0, str(here.parents[1]))

from holdfast_kv.namespace import canonical_key, engine_key, namespace_digest  # noqa: E402

vectors = json.loads((here.parents[3] / "Tests/KVIdentityTests/identity-vectors.json").read_text())
for vector in vectors["namespaces"]:
    assert namespace_digest(vector["fields"]).hex() == vector["digest"], vector
for vector in vectors["blocks"]:
    digest = bytes.fromhex(vectors["namespaces"][vector["namespace"]]["digest"])
    if vector["body"] == "engine":
        key = engine_key(digest, bytes.fromhex(vector["hash"]))
    else:
        parent, lora = bytes.fromhex(vector["parent"]), bytes.fromhex(vector["lora"])
        key = canonical_key(digest, parent, vector["tokens"], lora, [bytes.fromhex(m) for m in vector["media"]])
    assert key.hex() == vector["key"], vector
print(f"{len(vectors['namespaces']) + len(vectors['blocks'])} vectors agree")
