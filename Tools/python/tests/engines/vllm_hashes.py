"""vLLM's own hashes of blocks, as they were when the namespace's ``hash_scheme`` got its name, and the keys that follow.

When a vector here changes, vLLM hashes otherwise than it did: blocks of before cannot be found, and ``hash_scheme`` needs another
name. Adapters, images and salts are in the hash itself: each makes another key.
"""

from __future__ import annotations

import os
import sys
import unittest

sys.path.insert(0, os.path.join(os.path.dirname(__file__), "../.."))

from vllm.utils.hashing import sha256, sha256_cbor
from vllm.v1.core import kv_cache_utils
from vllm.v1.kv_offload.base import make_offload_key

from holdfast_kv.namespace import REQUIRED_FIELDS, EngineKeys, engine_key, namespace_digest
from holdfast_kv.tier import name_of
from holdfast_kv.vllm.compat import hash_scheme

EXTRAS = {
    "nothing": None,
    "an adapter": (("lora", "a", "/p"),),
    "an adapter and a salt": (("lora", "a", "/p"), ("cache_salt", "s")),
    "an image": (("mm", "img0", 2),),
    "the same image elsewhere": (("mm", "img0", 1),),
}


class HashesTest(unittest.TestCase):
    def test_vectors_of_canonical_cbor(self) -> None:
        kv_cache_utils.init_none_hash(sha256_cbor)
        one = kv_cache_utils.hash_block_tokens(sha256_cbor, None, [1, 2, 3, 4])
        two = kv_cache_utils.hash_block_tokens(sha256_cbor, one, [5, 6, 7, 8])
        more = [kv_cache_utils.hash_block_tokens(sha256_cbor, None, [1, 2, 3, 4], EXTRAS[name])
                for name in ("an adapter and a salt", "an image")]  # fmt: skip
        self.assertEqual([each.hex() for each in (kv_cache_utils.NONE_HASH, one, two, *more)], [
            "9bd96a485ad84efdafb72ee48a1d7a69bcead0f8f0433173941b276b9581eef0",
            "58d0879dff3800f65f8c5fd449d73048c0f7699dd238a03b84b146b151d55111",
            "e1bc29393a2da9fd798f35ff04d215f846aee6df4b803ce3d43b57df56b58fb1",
            "a06c920213799afb2999268da3a8c80269d0f627531efb190fe0704fa28684be",
            "30b1f12904ecd3028919390a1af269dae0483de195bf1d3ffa576c965e5da9a0",
        ])  # fmt: skip

    def test_vectors_of_the_default(self) -> None:
        kv_cache_utils.init_none_hash(sha256)
        one = kv_cache_utils.hash_block_tokens(sha256, None, [1, 2, 3, 4])
        self.assertEqual([each.hex() for each in (kv_cache_utils.NONE_HASH, one)], [
            "066b1e8987e027138e98701c46128929378935f9b6cd1549105ae6b4f0d71198",
            "52a7f141c60918f65779927090482b5a24adbe68c8613a211a1eb4e3edd9361a",
        ])  # fmt: skip

    def test_each_algorithm_has_a_namespace_of_its_own(self) -> None:
        seeds = set()
        for algorithm in (sha256, sha256_cbor):
            kv_cache_utils.init_none_hash(algorithm)
            scheme, seed = hash_scheme()
            self.assertEqual((scheme, seed), ("vllm-chain", kv_cache_utils.NONE_HASH.hex()))
            seeds.add(seed)
        self.assertEqual(len(seeds), 2)

    def test_adapters_images_and_salts_make_other_keys(self) -> None:
        kv_cache_utils.init_none_hash(sha256_cbor)
        digest = namespace_digest(dict.fromkeys(REQUIRED_FIELDS, ""))
        keys = EngineKeys(digest)
        found = {}
        for name, extras in EXTRAS.items():
            hash = bytes(kv_cache_utils.hash_block_tokens(sha256_cbor, None, [1, 2, 3, 4], extras))
            self.assertEqual(name_of(hash, 3), make_offload_key(hash, 3))
            self.assertEqual(keys(hash), engine_key(digest, hash))
            found[keys(hash)] = name
        self.assertEqual(len(found), len(EXTRAS), found)


if __name__ == "__main__":
    unittest.main(verbosity=2)
