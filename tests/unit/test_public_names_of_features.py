"""Public names of upstream in modules of one feature each: saved contexts."""

from __future__ import annotations

import importlib

import pytest
from test_public_names import has

OFFERED = {
    "": "JsonPickleSerializer",
    "context.serializers": "JsonPickleSerializer",
    "context_serializers": "JsonPickleSerializer",
    "context.state_store": "DictState InMemoryStateStore StateStore",
}

PATCHES = "state checkpoints as JSON Patches, new and experimental in upstream; the journal has every state"
STORED_STATE = """InMemorySerializedState StateRecord StateStorage StateStoreFacade assign_path_step
    copy_state_for_edit create_cleared_state create_in_memory_payload decode_seed_state decode_state
    decode_state_tree deserialize_dict_state_data deserialize_state_from_dict encode_state
    encode_state_tree get_by_path infer_state_type is_declared_model_path_segment
    is_durable_serialized_state merge_state parse_in_memory_state restored_run_id
    serialize_dict_state_data set_by_path set_by_path_copy string_record_from_state
    traverse_path_step"""
STORAGE = "how upstream stores its state; here the journal does"

NOT_OFFERED = {
    "context.state_store.UnserializableKeyWarning": "a value that cannot be stored is refused where it is set",
    "context.state_store.StateCheckpoint": PATCHES,
    "context.state_store.apply_state_patch": PATCHES,
    **dict.fromkeys((f"context.state_store.{name}" for name in STORED_STATE.split()), STORAGE),
}


@pytest.mark.parametrize("module", OFFERED)
def test_a_module_of_this_name_has_the_public_names(module):
    found = importlib.import_module(f"durable_flow.{module}" if module else "durable_flow")
    assert [name for name in OFFERED[module].split() if not hasattr(found, name)] == []


@pytest.mark.parametrize("path", NOT_OFFERED)
def test_what_is_not_offered_is_not_there_as_a_stub(path):
    assert not has(path)
