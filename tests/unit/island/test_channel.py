"""The control channel carries messages of any size, with descriptors, and notices the end."""

import os
import threading

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from enisle.island.channel import Channel, pair


def close(*channels: Channel) -> None:
    for channel in channels:
        channel.close()


json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.dictionaries(st.text(max_size=5), json_values, max_size=3), max_size=5))
def test_messages_arrive_whole_and_in_order(messages: list[dict[str, object]]) -> None:
    left, right = (Channel(end) for end in pair())
    for message in messages:
        left.send(message)
    assert [right.receive() for _ in messages] == [(message, []) for message in messages]
    close(left, right)


def test_a_message_larger_than_the_sockets_buffer_arrives() -> None:
    left, right = (Channel(end) for end in pair())
    message = {"text": "é" * 3_000_000}
    sender = threading.Thread(target=left.send, args=(message,))
    sender.start()
    assert right.receive() == (message, [])
    sender.join()
    close(left, right)


def test_descriptors_travel_with_their_message() -> None:
    left, right = (Channel(end) for end in pair())
    reader, writer = os.pipe()
    left.send({"first": 1})
    left.send({"second": 2}, (writer,))
    left.send({"third": 3})
    os.close(writer)
    assert right.receive() == ({"first": 1}, [])
    received = right.receive()
    assert received is not None
    os.write(received[1][0], b"through")
    assert os.read(reader, 7) == b"through"
    assert not os.get_inheritable(received[1][0])
    assert right.receive() == ({"third": 3}, [])
    os.close(received[1][0])
    os.close(reader)
    close(left, right)


def test_the_end_of_the_peer_is_the_end_of_the_messages() -> None:
    left, right = (Channel(end) for end in pair())
    left.close()
    assert right.receive() is None
    with pytest.raises(OSError, match="Broken pipe"):
        right.send({})
    right.close()
