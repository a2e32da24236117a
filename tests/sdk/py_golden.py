"""What the gateway's golden cases say in the dialects of OpenAI and Anthropic, against those providers' own types.

Nobody is asked and nothing is sent: `--cases` is the directory of the cases. Requests, replies and each event of a stream
are validated, with no field that the types do not have; streams are folded by the SDKs' own accumulators, and held against
the order that the providers keep. A line of JSON a kind and dialect says how many were looked at, and what was wrong.
"""

import argparse
import json
import pathlib
import typing

# An Iterable is validated when somebody reads it, which nobody does here.
typing.Iterable = typing.List

from anthropic.lib.streaming._beta_messages import accumulate_event  # noqa: E402
from anthropic.types.beta import BetaMessage, BetaRawMessageStreamEvent  # noqa: E402
from anthropic.types.beta import message_create_params as messages  # noqa: E402
from openai._models import construct_type_unchecked  # noqa: E402
from openai.lib.streaming.chat import ChatCompletionStreamState  # noqa: E402
from openai.lib.streaming.responses._responses import ResponseStreamState  # noqa: E402
from openai.types.chat import ChatCompletion, ChatCompletionChunk  # noqa: E402
from openai.types.chat import completion_create_params as chat  # noqa: E402
from openai.types.responses import Response, ResponseStreamEvent  # noqa: E402
from openai.types.responses import response_create_params as responses  # noqa: E402
from openai import NOT_GIVEN  # noqa: E402
from pydantic import TypeAdapter, ValidationError  # noqa: E402

TYPES = {
    ("request", "openai_chat"): chat.CompletionCreateParamsNonStreaming,
    ("request streamed", "openai_chat"): chat.CompletionCreateParamsStreaming,
    ("request", "openai_responses"): responses.ResponseCreateParamsNonStreaming,
    ("request streamed", "openai_responses"): responses.ResponseCreateParamsStreaming,
    ("request", "anthropic_messages"): messages.MessageCreateParamsNonStreaming,
    ("request streamed", "anthropic_messages"): messages.MessageCreateParamsStreaming,
    ("reply", "openai_chat"): ChatCompletion,
    ("reply", "openai_responses"): Response,
    ("reply", "anthropic_messages"): BetaMessage,
    ("stream", "openai_chat"): ChatCompletionChunk,
    ("stream", "openai_responses"): ResponseStreamEvent,
    ("stream", "anthropic_messages"): BetaRawMessageStreamEvent,
}
ADAPTERS = {key: TypeAdapter(kind) for key, kind in TYPES.items()}

# What is written on purpose and is in no type, with the reason: by kind, dialect and the last name of its place.
BEYOND = {
    # OpenRouter's, vLLM's and Google's names for what OpenAI's API has no field for; clients of theirs read them.
    ("reply", "openai_chat"): {
        "reasoning_content", "reasoning_details", "extra_content", "images", "native_finish_reason", "stop_reason",
        "content", "server_tool_use_details",
    },
    ("stream", "openai_chat"): {
        "reasoning_content", "reasoning_details", "extra_content", "images", "native_finish_reason", "stop_reason",
        "annotations", "custom", "server_tool_use_details",
    },
    # In each of OpenAI's real responses, and in none of its types.
    ("reply", "openai_responses"): {"store", "status"},
    ("stream", "openai_responses"): {"store", "status", "bytes"},
    # Models that are older than the types take them.
    ("request", "anthropic_messages"): {"temperature", "top_p", "top_k"},
}
# Where a word is told as the provider said it, though OpenAI's list has others: each of its SDKs takes any text there.
OPEN_WORDS = ("incomplete_details.reason", "response.error.code")
# Cases whose words are the input's own, kept byte for byte: made up, or those of servers that are not OpenAI.
KEPT = {
    "anthropic_messages/reply_new_block": "a block that nobody knows",
    "anthropic_messages/request_own_fields": "betas in the body, as Bedrock and Vertex take them",
    "anthropic_messages/request_thinking_binding": "a field that nobody knows",
    "openai_chat/reply_content_filter": "Azure's filter",
    "openai_chat/reply_reasoning_details": "OpenRouter's provider",
    "openai_chat/stream_azure": "Azure's filter",
    "openai_responses/codex_mcp": "Codex' client_metadata, which is in no type",
    "openai_responses/reply_more": "shortened objects",
}


def fill(value):
    """Adds what OpenAI's types of requests ask for and its API does not, as each of its clients knows."""
    for item in value.get("input") if isinstance(value.get("input"), list) else []:
        content = item.get("content")
        if item.get("type") == "reasoning":
            item.setdefault("id", "rs_1")
        if item.get("role") == "assistant" and isinstance(content, list):
            item.setdefault("id", "msg_1")
            item.setdefault("status", "completed")
        for part in content if isinstance(content, list) else []:
            if part.get("type") == "input_audio":
                # OpenAI has a type for it, and takes it in no message yet: that is for OpenAI to say.
                part.clear()
                part.update({"type": "input_text", "text": "sound"})
            if part.get("type") == "output_text":
                part.setdefault("annotations", [])
            if part.get("type") == "input_image":
                part.setdefault("detail", "auto")
    for tool in value.get("tools") or []:
        if tool.get("type") == "function" and "name" in tool:
            tool.setdefault("strict", None)
    return value


def reduced(errors):
    """Without what is wrong with members of a union that the value never claimed to be."""
    others = {
        error["loc"][:-1]
        for error in errors
        if error["type"] == "literal_error" and error["loc"][-1] in ("type", "role") and len(error["loc"]) > 1
    }
    left = [error for error in errors if not any(error["loc"][: len(other)] == other for other in others)]
    claimed = {str(error["input"]) for error in errors if error["type"] == "literal_error"}
    return left or [{"loc": (), "type": "unknown", "msg": f"of no known type: {sorted(claimed)}"}]


def misfits(kind, dialect, value):
    """What the types have against a value."""
    key = (kind + " streamed" if kind == "request" and value.get("stream") else kind, dialect)
    if kind == "request" and dialect == "openai_responses":
        value = fill(value)
    if key == ("stream", "openai_chat") and calls_custom(value):
        # The types of chunks know functions only; OpenAI's API streams both.
        return
    try:
        ADAPTERS[key].validate_python(value, extra="forbid")
    except ValidationError as error:
        beyond = BEYOND.get((kind, dialect), ())
        for wrong in reduced(error.errors(include_url=False)):
            if wrong["type"] == "extra_forbidden" and wrong["loc"][-1] in beyond:
                continue
            place = ".".join(map(str, wrong["loc"]))
            if wrong["type"] == "literal_error" and place.endswith(OPEN_WORDS):
                continue
            yield f"{place}: {wrong['msg']}"


def calls_custom(chunk):
    return any("custom" in call for choice in chunk["choices"] for call in choice["delta"].get("tool_calls") or [])


def events_of(text):
    for block in text.split("\n\n"):
        lines = dict(line.split(": ", 1) for line in block.splitlines() if ": " in line)
        if "data" in lines and lines["data"] != "[DONE]":
            data = json.loads(lines["data"])
            if "event" in lines and lines["event"] != data["type"]:
                raise AssertionError(f"an event is called {lines['event']} and is {data['type']}")
            yield data


def fold_chat(events):
    state = ChatCompletionStreamState()
    begun, finished, heads = set(), set(), set()
    for event in events:
        if "error" in event:
            return
        heads.add((event["id"], event["created"], event["model"], event["object"]))
        for choice in event["choices"]:
            index = choice["index"]
            assert (choice["delta"].get("role") == "assistant") == (index not in begun), "the role is said once and first"
            assert index not in finished, "something follows the end of a choice"
            begun.add(index)
            if choice["finish_reason"] is not None:
                finished.add(index)
        # The accumulator knows functions only.
        if not calls_custom(event):
            list(state.handle_chunk(construct_type_unchecked(value=event, type_=ChatCompletionChunk)))
    assert len(heads) <= 1, f"chunks differ in what they all say: {heads}"
    assert begun == finished, "a choice has no end"


def fold_responses(events):
    state = ResponseStreamState(input_tools=NOT_GIVEN, text_format=NOT_GIVEN)
    items, texts, last = {}, {}, None
    ends = ("response.completed", "response.incomplete", "response.failed", "error")
    for number, event in enumerate(events):
        assert event["sequence_number"] == number, f"event {number} is numbered {event['sequence_number']}"
        assert last not in ends, f"{event['type']} follows {last}"
        last = event["type"]
        if last == "error":
            continue
        parsed = construct_type_unchecked(value=event, type_=ResponseStreamEvent)
        state.handle_event(parsed)
        if last == "response.output_item.added":
            assert event["output_index"] == len(items), "items are counted as they come"
            items[event["output_index"]] = (event["item"], None)
        elif last == "response.output_item.done":
            begun = items[event["output_index"]][0]
            assert begun.get("id") == event["item"].get("id"), "an item changed its identity"
            assert begun["type"] == event["item"]["type"], "an item changed its type"
            items[event["output_index"]] = (begun, event["item"])
        elif "item_id" in event:
            assert items[event["output_index"]][0]["id"] == event["item_id"], "an event is of another item"
            place = (event["item_id"], event.get("content_index"), event.get("summary_index"), last.rsplit(".", 1)[0])
            if last.endswith(".delta"):
                texts[place] = texts.get(place, "") + event["delta"]
            elif last.endswith(".done"):
                whole = [event[name] for name in ("text", "refusal", "arguments", "input") if name in event]
                assert not whole or whole == [texts.get(place, "")], f"{last} says otherwise than its pieces"
        elif last in ends:
            done = [done for _, done in items.values() if done is not None]
            said = event["response"]["output"]
            assert last == "response.failed" or said == done, "the response has other items than its events"
    assert last in ends, "the stream has no end"


def fold_messages(events):
    whole, bufs, opened, count, last = None, {}, None, 0, None
    for event in events:
        kind = event["type"]
        assert last not in ("message_stop", "error"), f"{kind} follows {last}"
        if kind == "error":
            return
        if kind == "ping":
            continue
        last = kind
        if kind == "content_block_start":
            assert opened is None and event["index"] == count, "blocks begin one behind the other"
            opened, count = event["index"], count + 1
        elif kind in ("content_block_delta", "content_block_stop"):
            assert event["index"] == opened, "an event is of a block that is not open"
            opened = None if kind == "content_block_stop" else opened
        elif kind in ("message_delta", "message_stop"):
            assert opened is None, "the message ends in the middle of a block"
        whole = accumulate_event(
            event=construct_type_unchecked(value=event, type_=BetaRawMessageStreamEvent),
            current_snapshot=whole,
            json_bufs=bufs,
            request_headers={},
        )
    assert last == "message_stop", "the stream has no end"


FOLDS = {"openai_chat": fold_chat, "openai_responses": fold_responses, "anthropic_messages": fold_messages}


def misfits_of(kind, dialect, path):
    text = path.read_text()
    if path.suffix == ".json":
        yield from misfits(kind, dialect, json.loads(text))
        return
    try:
        events = list(events_of(text))
        for event in events:
            # Errors and pings are outside of the types; the folds look at where they stand.
            if "error" not in event and event.get("type") not in ("ping", "error"):
                yield from misfits("stream", dialect, event)
        FOLDS[dialect](events)
    except Exception as error:  # Whatever an accumulator raises is what its users would see.
        yield f"{type(error).__name__}: {error}"


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--cases", required=True, type=pathlib.Path)
    parser.add_argument("--only", default="", help="only cases whose path has this in it")
    options = parser.parse_args()
    counts, wrong = {}, {}
    for path in sorted(options.cases.glob("*/*/to.*")):
        case = "/".join(path.parts[-3:-1])
        _, dialect, ending = path.name.split(".")
        kind = next(own.name.split(".")[0] for own in path.parent.iterdir() if own.name.split(".")[0] in KINDS)
        if dialect not in FOLDS or ending not in ("json", "sse") or kind == "error" or options.only not in case:
            continue
        target = json.loads((path.parent / "case.json").read_text()).get("target", {})
        if case in KEPT or (kind == "request" and target.get("quirks", "openai") not in ("openai", "azure")):
            continue
        name = f"{kind} {dialect}"
        counts[name] = counts.get(name, 0) + 1
        found = sorted(set(misfits_of(kind, dialect, path)))
        if found:
            wrong.setdefault(name, {})[case] = found
    for name, count in sorted(counts.items()):
        print(json.dumps({"name": name, "ok": name not in wrong, "cases": count, "wrong": wrong.get(name, {})}))


KINDS = ("request", "reply", "error", "stream")

if __name__ == "__main__":
    main()
