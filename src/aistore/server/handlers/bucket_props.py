"""The properties that every bucket has, as the wire spells them."""

from __future__ import annotations

from typing import Any

from ...model.buckets import BucketInfo


def bucket_props(info: BucketInfo) -> dict[str, Any]:
    """Return a bucket's properties by the field's keys: what is true of every bucket here."""
    props: dict[str, Any] = {
        "provider": "ais",
        "backend_bck": {"name": "", "provider": ""},
        "write_policy": {"data": "", "md": ""},
        "checksum": {
            "type": "xxhash2", "validate_cold_get": False, "validate_warm_get": False, "validate_obj_move": False,
            "enable_read_range": False,
        },
        "versioning": {"enabled": True, "validate_warm_get": False, "synchronize": False},
        "mirror": {"copies": 1, "burst_buffer": 0, "enabled": False},
        "ec": {
            "compression": "never", "bundle_multiplier": 0, "objsize_limit": 0, "data_slices": 0, "parity_slices": 0,
            "enabled": False, "disk_only": False,
        },
        "chunks": {
            "objsize_limit": "0B", "max_monolithic_size": "0B", "chunk_size": "0B", "checkpoint_every": 0, "flags": 0,
        },
        "lru": {"dont_evict_time": "0s", "capacity_upd_time": "0s", "enabled": False},
        "rate_limit": {},
        "extra": {},
        "access": str((1 << 64) - 1),
        "features": "0",
        "bid": str(info.id),
        "created": str(info.created_ns),
    }  # fmt: skip
    return props
