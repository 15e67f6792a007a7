"""The pickle serializer: signed, verified before it is parsed, and imported only when asked for."""

from __future__ import annotations

import pickle
import subprocess
import sys
from collections import deque
from fractions import Fraction
from typing import Any

import pytest
from serializer_samples import Outer, SampleWork

from durable_flow import Journal, StartEvent, StopEvent, Workflow, step
from durable_flow.errors import DeserializationError, SerializationError
from durable_flow.serializers import JsonPickleSerializer, JsonSerializer, PickleSerializer
from durable_flow.serializers.base import require_key
from durable_flow.serializers.pickle import Signature


class Unlikely(Exception):
    """Has no part in JSON."""

    def __eq__(self, other: object) -> bool:
        return type(other) is Unlikely and other.args == self.args

    __hash__ = None  # type: ignore[assignment]


class Flow(Workflow):
    @step
    async def go(self, ev: StartEvent) -> StopEvent:
        return StopEvent()


class Bomb:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return (explode, ("boom",))


exploded: list[str] = []


def explode(word: str) -> None:
    exploded.append(word)


def test_values_come_back():
    serializer = PickleSerializer(key="k")
    for value in (SampleWork(n=1), Outer(original_event=SampleWork(n=1, x=(1,))), Unlikely("x"), {1: (2, {3})}):
        assert serializer.deserialize(serializer.serialize(value)) == value
    assert serializer.codec == "pickle"


def test_without_a_key_no_journal_is_written(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("DURABLE_FLOW_SERIALIZER_KEY", raising=False)
    for make in (PickleSerializer, JsonPickleSerializer):
        for key in ("", b""):
            with pytest.raises(SerializationError, match="secret key is empty"):
                make(key=key)
        with pytest.raises(SerializationError, match="pass key=, or set the environment variable"):
            Journal("memory://", serializer=make())
        with pytest.raises(SerializationError, match="pass key=, or set the environment variable"):
            Flow(serializer=make())
        assert require_key(make(key="k")).codec == make(key="other").codec != make().codec


@pytest.mark.parametrize("make", [PickleSerializer, JsonPickleSerializer])
@pytest.mark.parametrize(
    "key", [bytearray(b"secret"), memoryview(b"secret"), [115, 101], 115, {"k": 1}, [None], object()]
)
def test_a_key_that_is_neither_bytes_nor_text_is_refused(make: type[PickleSerializer], key: Any):
    # bytes(115) would be 115 zeros, which everybody can sign with.
    with pytest.raises(SerializationError, match="secret key is bytes or text"):
        make(key=key)


def test_without_a_key_a_value_comes_back_all_the_same(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("DURABLE_FLOW_SERIALIZER_KEY", raising=False)
    for make in (PickleSerializer, JsonPickleSerializer):
        assert make().deserialize(make().serialize({1: Unlikely("x")})) == {1: Unlikely("x")}
        signed = make(key="k").serialize([1])
        with pytest.raises(DeserializationError):
            make().deserialize(signed)
        with pytest.raises(DeserializationError):
            make(key="k").deserialize(make().serialize([1]))
        monkeypatch.setenv("DURABLE_FLOW_SERIALIZER_KEY", "k")
        assert make().deserialize(signed) == [1]
        monkeypatch.delenv("DURABLE_FLOW_SERIALIZER_KEY")


class Tricky:
    """Comes back from jsonpickle without what it holds."""

    def __init__(self) -> None:
        self.held = {1, 2}

    def __getstate__(self) -> tuple[object, ...]:
        return ("state", self.held)

    def __setstate__(self, state: object) -> None:
        self.held = {1, 2} if isinstance(state, tuple) else set()


def test_json_where_it_is_exact_then_the_text_of_jsonpickle_then_pickle():
    serializer = JsonPickleSerializer(key="k")
    exact, text = serializer.serialize({"n": (1, 2)}), serializer.serialize({"n": deque([Fraction(1, 3)])})
    assert b'{"$tuple":[1,2]}' in exact
    assert b'{"py/type": "fractions.Fraction"}' in text
    assert serializer.deserialize(exact) == {"n": (1, 2)}
    assert serializer.deserialize(text) == {"n": deque([Fraction(1, 3)])}
    again = serializer.deserialize(serializer.serialize({"n": Tricky()}))
    assert again["n"].held == {1, 2}
    unlikely = {"n": Unlikely("x")}
    assert serializer.deserialize(serializer.serialize(unlikely)) == unlikely
    for data in (b"", b"x", JsonSerializer().serialize([1])):
        with pytest.raises(DeserializationError, match="not written by JsonPickleSerializer"):
            serializer.deserialize(Signature("k").sign(data))
    with pytest.raises(SerializationError, match="cannot be pickled"):
        serializer.serialize(lambda: 0)


def test_the_key_may_come_from_the_environment(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("DURABLE_FLOW_SERIALIZER_KEY", "from outside")
    data = PickleSerializer().serialize([1])
    assert PickleSerializer(key=b"from outside").deserialize(data) == [1]


def test_nothing_is_unpickled_that_the_key_has_not_signed():
    serializer = PickleSerializer(key="k")
    bomb = PickleSerializer(key="other").serialize(Bomb())
    changed = bytearray(serializer.serialize([1]))
    changed[-2] ^= 1
    for data in (bomb, pickle.dumps(Bomb()), bytes(32) + pickle.dumps(Bomb()), bytes(changed), b"", b"x"):
        with pytest.raises(DeserializationError, match="nothing was unpickled"):
            serializer.deserialize(data)
    assert exploded == []
    serializer.deserialize(serializer.serialize(Bomb()))
    assert exploded == ["boom"]  # so the bomb would have gone off


def test_without_the_package_jsonpickle_there_are_pickles_and_its_texts_are_not_read(monkeypatch: pytest.MonkeyPatch):
    serializer = JsonPickleSerializer(key="k")
    text = serializer.serialize(Fraction(1, 3))
    monkeypatch.setitem(sys.modules, "jsonpickle", None)
    assert serializer.deserialize(serializer.serialize(Fraction(1, 3))) == Fraction(1, 3)
    with pytest.raises(DeserializationError, match=r"pip install 'durable-flow\[jsonpickle\]'"):
        serializer.deserialize(text)


@pytest.mark.parametrize("make", [PickleSerializer, JsonPickleSerializer])
def test_keys_are_rotated(make: type[PickleSerializer]):
    old, both, new = make(key="old"), make(key=["new", b"old"]), make(key=["new"])
    assert both.deserialize(old.serialize([1])) == [1]
    assert new.deserialize(both.serialize([1])) == [1]
    with pytest.raises(DeserializationError, match="nothing was unpickled"):
        new.deserialize(old.serialize([1]))
    for wrong in ([], ["new", ""]):
        with pytest.raises(SerializationError, match="secret key is empty"):
            make(key=wrong)


def test_a_text_of_jsonpickle_is_parsed_only_behind_its_signature():
    bomb = b't{"py/reduce": [{"py/function": "%s.explode"}, {"py/tuple": ["boom"]}]}' % __name__.encode()
    with pytest.raises(DeserializationError, match="nothing was unpickled"):
        JsonPickleSerializer(key="k").deserialize(bytes(32) + bomb)
    assert "boom" not in exploded[1:]


def test_what_cannot_be_pickled_is_refused():
    with pytest.raises(SerializationError, match=r"^SampleWork: cannot be pickled: ") as caught:
        PickleSerializer(key="k").serialize(SampleWork(n=1, handle=lambda: 0))
    assert caught.value.path == "SampleWork"


def test_signed_data_that_can_no_longer_be_read_are_an_error(monkeypatch: pytest.MonkeyPatch):
    serializer = PickleSerializer(key="k")
    data = serializer.serialize(Unlikely("x"))
    monkeypatch.delattr(sys.modules[__name__], "Unlikely")
    with pytest.raises(DeserializationError, match="cannot be read: AttributeError"):
        serializer.deserialize(data)


class Gone:
    """Has a text of jsonpickle."""

    def __init__(self) -> None:
        self.n = 1


def test_a_text_of_jsonpickle_whose_class_is_gone_is_an_error_as_any_other(monkeypatch: pytest.MonkeyPatch):
    serializer = JsonPickleSerializer(key="k")
    data = serializer.serialize(Gone())
    assert b"py/object" in data
    monkeypatch.delattr(sys.modules[__name__], "Gone")
    with pytest.raises(DeserializationError, match=r"jsonpickle cannot be read: .*Gone"):
        serializer.deserialize(data)


def test_an_object_of_a_local_class_is_refused_by_jsonpickle_too():
    class Local:
        def __init__(self) -> None:
            self.n = 1

    with pytest.raises(SerializationError, match="Local"):
        JsonPickleSerializer(key="k").serialize(Local())


def test_pickle_is_imported_only_when_asked_for():
    program = (
        "import sys, durable_flow.serializers as s; assert 'durable_flow.serializers.pickle' not in sys.modules\n"
        "s.JsonSerializer().serialize({1: 2}); assert 'durable_flow.serializers.pickle' not in sys.modules\n"
        "s.PickleSerializer; assert 'durable_flow.serializers.pickle' in sys.modules\n"
        "try: s.NoSuchSerializer\n"
        "except AttributeError: print('fine')"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr) == ("fine\n", "")
