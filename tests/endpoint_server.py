"""An OpenAI-compatible server for tests, a process of its own: `python endpoint_server.py` prints its port.

It answers `QUESTION => SEED` unless `POST /say` named an answer for the question. `POST /next` lists what it does with
the next requests instead, one each: {"status", "headers", "body"} is sent as it stands, {"content"} is sent with status
200, {"hang"} waits so many seconds first, {"drop"} breaks off, {"change"} puts entries into the choice. `GET /seen`
tells what was asked, and empties the list.
"""

from __future__ import annotations

import asyncio
import json
import socket
from collections import deque
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

NEXT: deque[dict[str, Any]] = deque()
SAY: dict[str, str] = {}
SEEN: list[dict[str, Any]] = []
BUSY = {"now": 0, "most": 0}


async def completion(request: Request) -> Response:
    body = await request.json()
    SEEN.append({"body": body, "authorization": request.headers.get("authorization")})
    BUSY["now"] += 1
    BUSY["most"] = max(BUSY["most"], BUSY["now"])
    try:
        return await answer(body, NEXT.popleft() if NEXT else {})
    finally:
        BUSY["now"] -= 1


async def answer(body: dict[str, Any], wanted: dict[str, Any]) -> Response:
    await asyncio.sleep(wanted.get("hang", 0.01))  # a moment, so that requests overlap
    if wanted.get("drop"):
        return StreamingResponse(broken(), media_type="application/json", headers={"content-length": "5000"})
    if "status" in wanted:
        return JSONResponse(wanted.get("body"), wanted["status"], wanted.get("headers"))
    if "content" in wanted:
        return Response(wanted["content"], media_type="application/json")
    question = body["messages"][-1]["content"]
    text = SAY.get(question, f"{question} => {body.get('seed')}")
    choice = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}
    counted = {"prompt_tokens": 10 * len(body["messages"]), "completion_tokens": len(text.split())}
    usage = {"usage": {**counted, "total_tokens": sum(counted.values())}}
    record = {"id": "c", "object": "chat.completion", "created": 0, "model": body["model"], **usage}
    return JSONResponse({**record, "choices": [{**choice, **wanted.get("change", {})}]})


async def broken() -> Any:
    yield b'{"choices": [{"mess'


async def do_next(request: Request) -> Response:
    NEXT.clear()
    NEXT.extend(await request.json())
    return JSONResponse("ok")


async def say(request: Request) -> Response:
    SAY.clear()
    SAY.update(await request.json())
    return JSONResponse("ok")


async def seen(_: Request) -> Response:
    found = {"requests": list(SEEN), "at_once": BUSY["most"]}
    SEEN.clear()
    BUSY["most"] = 0
    return Response(json.dumps(found), media_type="application/json")


ROUTES = [
    Route("/v1/chat/completions", completion, methods=["POST"]),
    Route("/next", do_next, methods=["POST"]),
    Route("/say", say, methods=["POST"]),
    Route("/seen", seen),
]


if __name__ == "__main__":
    listening = socket.socket()
    listening.bind(("127.0.0.1", 0))
    listening.listen()  # from here on callers wait instead of being refused
    print(listening.getsockname()[1], flush=True)
    uvicorn.Server(uvicorn.Config(Starlette(routes=ROUTES), log_level="critical")).run(sockets=[listening])
