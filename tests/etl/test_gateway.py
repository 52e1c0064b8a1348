"""What a transform that is a server can ask of the store, and what it cannot."""

from __future__ import annotations

import asyncio
import http.client
import os
import random
import socket
import threading
from collections.abc import Callable
from typing import Any
from urllib.parse import quote, urlsplit

import pytest
from talking import Caller, Heard, RawServer, Talk, answering, talk

from aistore.errors import TransformError
from aistore.etl.servers.call_files import Offers

URL = "/v1/etl/_object/test-etl/s3cret/"
UNAME = "ais/@#/bck/dir/name.jpg"


class Back:
    """A transform's calls back to the store, over one connection."""

    def __init__(self, port: int) -> None:
        self.connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)

    def __call__(self, method: str, path: str, body: Any = None, **headers: str) -> tuple[int, bytes, dict[str, str]]:
        self.connection.request(method, path, body, headers)
        reply = self.connection.getresponse()
        return reply.status, reply.read(), {name.lower(): value for name, value in reply.getheaders()}


def pulling(answer: Callable[[Back, Heard], bytes], *, gateway: list[int]) -> Callable[[RawServer, Caller], None]:
    """Return the script of a server that calls back before it answers; ``gateway`` gets the port for that."""

    def each(heard: Heard) -> bytes:
        back = Back(gateway[0])
        try:
            return answer(back, heard)
        finally:
            back.connection.close()

    return answering(each)


def through(answer: Callable[[Back, Heard], bytes], use: Callable[[Talk], Any], **fields: Any) -> RawServer:
    """Run ``use`` with a server that calls back; return the server, with what it heard."""
    gateway: list[int] = []

    async def begin(t: Talk) -> None:
        gateway.append(urlsplit(t.running.target_url).port or 0)
        await use(t)

    with RawServer(pulling(answer, gateway=gateway)) as server:
        talk(server.port, begin, **{"gateway": True, "communication": "hpull://", **fields})
    return server


def pull(back: Back, heard: Heard) -> bytes:
    status, body, _ = back("GET", URL + heard.target[1:].partition("?")[0])
    assert status == 200
    return body.upper()


@pytest.mark.parametrize("communication", ["hpull://", "hrev://"])
@pytest.mark.parametrize("name", ["a", "dir/name.jpg", "ümlaut/名.txt", "sp ace?and=more&%2F#x", "x" * 600])
def test_a_transform_comes_for_its_object(communication: str, name: str) -> None:
    async def use(t: Talk) -> None:
        assert await t.object(b"words", name, "128") == b"WORDS"

    (heard,) = through(pull, use, communication=communication).heard
    assert heard.method == "GET"
    assert heard.target == f"/{quote('ais/@#/bck/' + name, safe='')}?etl_args=128"
    assert "content-length" not in heard.headers


@pytest.mark.parametrize("size", [0, 1, 256 << 10, (256 << 10) + 1, 10 << 20])
def test_an_object_of_any_size(size: int) -> None:
    data = random.Random(size).randbytes(size)

    def answer(back: Back, heard: Heard) -> bytes:
        status, body, headers = back("GET", URL + heard.target[1:])
        assert (status, headers["content-length"]) == (200, str(size))
        assert back("HEAD", URL + heard.target[1:])[2]["content-length"] == str(size)
        return body

    async def use(t: Talk) -> None:
        assert await t.object(data) == data

    through(answer, use)


@pytest.mark.parametrize(
    "spelling", [quote(UNAME, safe=""), quote(UNAME, safe="@"), quote(UNAME), UNAME.replace("#", "%23")]
)
def test_the_name_may_be_escaped_or_not(spelling: str) -> None:
    def answer(back: Back, heard: Heard) -> bytes:
        return back("GET", URL + spelling + "?latest-ver=false")[1]

    async def use(t: Talk) -> None:
        assert await t.object(b"words") == b"words"

    through(answer, use)


REFUSED = {
    "another object": ("GET", URL + quote("ais/@#/bck/other"), 404),
    "an object of another bucket": ("GET", URL + quote("ais/@#/other/dir/name.jpg"), 404),
    "no object": ("GET", URL, 404),
    "the calls' directory": ("GET", URL + "..%2F..%2F", 404),
    "another secret": ("GET", "/v1/etl/_object/test-etl/s3cres/" + quote(UNAME), 400),
    "no secret": ("GET", "/v1/etl/_object/test-etl//" + quote(UNAME), 400),
    "a secret of letters that no secret has": ("GET", "/v1/etl/_object/test-etl/s%C3%A9/" + quote(UNAME), 400),
    "objects by their own path": ("GET", "/v1/objects/bck/dir/name.jpg", 400),
    "buckets": ("GET", "/v1/buckets", 400),
    "the cluster map": ("GET", "/v1/daemon?what=smap", 400),
    "other transforms": ("GET", "/v1/etl", 400),
    "making a transform": ("POST", "/v1/etl/init_code", 400),
    "the root": ("GET", "/", 400),
    "deleting": ("DELETE", URL + quote(UNAME), 405),
    "changing": ("POST", URL + quote(UNAME), 405),
    "putting something else": ("PUT", URL + quote("ais/@#/bck/other"), 404),
    "putting for another call": ("PUT", URL + quote(UNAME) + "?uuid=other", 404),
    "an id that nobody has": ("PUT", "/" + quote(UNAME, safe="") + "?uuid=other", 404),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_a_transform_cannot_ask_for(kind: str) -> None:
    method, path, status = REFUSED[kind]

    def answer(back: Back, heard: Heard) -> bytes:
        got, body, _ = back(method, path, b"x" if method in ("PUT", "POST") else None)
        return b"%d %b" % (got, body)

    async def use(t: Talk) -> None:
        said = await t.object(b"words")
        assert said.startswith(b"%d " % status), said
        assert status != 400 or b"unrecognized request source" in said

    through(answer, use)


def test_an_object_can_be_read_only_while_it_is_transformed() -> None:
    async def use(t: Talk) -> None:
        assert await t.object(b"words") == b"WORDS"
        back = Back(urlsplit(t.running.target_url).port or 0)
        for method in ("GET", "HEAD", "PUT"):
            status, _, _ = await asyncio.to_thread(back, method, URL + quote(UNAME))
            assert status == 404
        back.connection.close()

    through(pull, use)


def test_it_gets_the_bytes_that_the_call_began_with() -> None:
    async def use(t: Talk) -> None:
        objects = [t.object(b"words %d" % number, f"name-{number}") for number in range(50)]
        assert await asyncio.gather(*objects) == [b"WORDS %d" % number for number in range(50)]

    through(pull, use)


def test_files_need_no_calls_back() -> None:
    def answer(back: Back, heard: Heard) -> bytes:
        path, _, query = heard.target.partition("?")
        assert query.startswith("etl_fqn=%2F")
        return b"%d" % back("GET", URL + path[1:])[0]

    async def use(t: Talk) -> None:
        assert await t.object(b"words") == b"404"

    through(answer, use, direct_file=True)


# Results that are put.


def test_a_result_may_be_put() -> None:
    for size in (0, 5, 3 << 20):
        data = random.Random(size).randbytes(size)
        with RawServer(_putting(data)) as server:

            async def use(t: Talk, data: bytes = data) -> None:
                assert await t.object(b"words") == data
                assert await t.object(b"words") == data

            talk(server.port, use, gateway=True, direct_put=True)


def _putting(data: bytes, *, told: int | None = None, chunked: bool = False) -> Callable[[RawServer, Caller], None]:
    """Return the script of a server that puts its result as NVIDIA's classes do."""

    def script(server: RawServer, caller: Caller) -> None:
        while (heard := caller.request()) is not None:
            server.heard.append(heard)
            url = urlsplit(heard.headers["ais-node-url"])
            back = Back(url.port or 0)
            body = iter([data]) if chunked else data
            status, _, _ = back("PUT", f"{URL.rstrip('/')}{url.path}?{url.query}", body)
            back.connection.close()
            assert status == 200
            size = len(data) if told is None else told
            caller.send(f"HTTP/1.1 204 No Content\r\nAis-Direct-Put-Length: {size}\r\n\r\n".encode())

    return script


def test_a_result_may_be_put_in_chunks() -> None:
    async def use(t: Talk) -> None:
        assert await t.object(b"words") == b"result"

    with RawServer(_putting(b"result", chunked=True)) as server:
        talk(server.port, use, gateway=True, direct_put=True)


def test_a_result_that_is_another_than_was_said_is_an_error() -> None:
    async def use(t: Talk) -> None:
        with pytest.raises(TransformError, match="has 7 bytes, and put 6"):
            await t.object(b"words")

    with RawServer(_putting(b"result", told=7)) as server:
        talk(server.port, use, gateway=True, direct_put=True)


def test_each_result_is_for_its_own_call() -> None:
    def script(server: RawServer, caller: Caller) -> None:
        while (heard := caller.request()) is not None:
            url = urlsplit(heard.headers["ais-node-url"])
            back = Back(url.port or 0)
            assert back("PUT", f"{url.path}?{url.query}", heard.body.upper())[0] == 200
            back.connection.close()
            caller.send(b"HTTP/1.1 204 No Content\r\n\r\n")

    async def use(t: Talk) -> None:
        objects = [t.object(b"words %d" % number) for number in range(50)]  # of one name
        assert await asyncio.gather(*objects) == [b"WORDS %d" % number for number in range(50)]

    with RawServer(script) as server:
        talk(server.port, use, gateway=True, direct_put=True)


def test_a_result_that_could_be_of_two_calls_is_refused() -> None:
    both = threading.Barrier(2)

    def answer(back: Back, heard: Heard) -> bytes:
        both.wait(30)
        status, _, _ = back("PUT", URL + quote(UNAME), b"result")
        both.wait(30)
        return b"%d" % status

    async def use(t: Talk) -> None:
        assert await asyncio.gather(t.object(b"a"), t.object(b"b")) == [b"409", b"409"]

    through(answer, use)


def test_half_a_result_is_none() -> None:
    def answer(back: Back, heard: Heard) -> bytes:
        back.connection.putrequest("PUT", URL + quote(UNAME))
        back.connection.putheader("Content-Length", "100")
        back.connection.endheaders()
        back.connection.send(b"half")
        assert back.connection.sock is not None
        back.connection.sock.shutdown(socket.SHUT_WR)
        back.connection.sock.recv(1000)
        return b"fine"

    async def use(t: Talk) -> None:
        assert await t.object(b"words") == b"fine"

    through(answer, use)


def test_a_result_for_a_call_that_has_ended_leaves_nothing(tmp_path: Any) -> None:
    offers = Offers(str(tmp_path))
    name = "ais/@#/bck/o"
    from aistore.etl.servers.call_files import key_of

    call = tmp_path / f"{key_of(name)}-1"
    call.write_bytes(b"object")
    put = offers.begin_put(name, "1")
    put.write(b"result")
    call.unlink()
    with pytest.raises(Exception, match="has ended"):
        put.commit()
    put.abort()
    assert os.listdir(tmp_path) == []


# What is no HTTP.


@pytest.mark.parametrize(
    "said",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"GET " + b"x" * 100_000,
        b"GET / HTTP/1.1\r\n" + b"x: y\r\n" * 20_000,
        b"GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n",
        b"PUT /v1/etl/_object/test-etl/s3cret/x HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"\r\n\r\n\r\n",
    ],
)
def test_garbage_ends_its_connection_alone(said: bytes) -> None:
    def answer(back: Back, heard: Heard) -> bytes:
        with socket.create_connection(("127.0.0.1", back.connection.port), 30) as connection:
            connection.sendall(said)
            connection.shutdown(socket.SHUT_WR)
            while connection.recv(1 << 16):
                pass
        return pull(back, heard)

    async def use(t: Talk) -> None:
        assert await t.object(b"words") == b"WORDS"

    through(answer, use)


def test_one_connection_may_ask_many_times() -> None:
    def answer(back: Back, heard: Heard) -> bytes:
        for _ in range(50):
            assert back("GET", URL + quote(UNAME))[0] == 200
            back("HEAD", URL + quote(UNAME))
        back.connection.putrequest("PUT", URL + quote(UNAME))
        back.connection.putheader("Content-Length", "4")
        back.connection.putheader("Expect", "100-continue")
        back.connection.endheaders()
        back.connection.send(b"four")
        assert back.connection.getresponse().read() == b""
        return b"fine"

    async def use(t: Talk) -> None:
        assert await t.object(b"words") == b"fine"

    through(answer, use)
