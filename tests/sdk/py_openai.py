"""openai for Python: Chat Completions and Responses."""

import json

import openai
from pydantic import BaseModel

from scenarios import EIGHT, PNG, WEATHER, equal, play, raises, scenario

TOOL = {"type": "function", "function": {"name": "weather", "parameters": WEATHER, "strict": True}}
OTHER = {"type": "function", "function": {"name": "clock", "parameters": {"type": "object", "properties": {}}}}
FLAT = {"type": "function", "name": "weather", "parameters": WEATHER, "strict": True}


class City(BaseModel):
    city: str
    people: int


class Context:
    def __init__(self, options):
        self.model = options.model
        self.same = options.provider in ("same", "openai_chat")
        self.client = openai.OpenAI(base_url=f"{options.base}/v1", api_key="key", max_retries=0, timeout=10)

    def ask(self, text, **more):
        messages = more.pop("messages", None) or [{"role": "user", "content": text}]
        return self.client.chat.completions.create(model=self.model, messages=messages, **more)

    def respond(self, text, **more):
        return self.client.responses.create(model=self.model, input=text, **more)


@scenario
def plain(c):
    reply = c.ask("hello")
    equal(reply.choices[0].finish_reason, "stop")
    assert reply.usage.total_tokens == reply.usage.prompt_tokens + reply.usage.completion_tokens > 0
    return equal(reply.choices[0].message.content, EIGHT)


@scenario
def streaming(c):
    chunks = list(c.ask("hello [[cut=1]]", stream=True, stream_options={"include_usage": True}))
    equal(chunks[0].choices[0].delta.role, "assistant")
    equal([chunk.choices[0].finish_reason for chunk in chunks if chunk.choices][-1], "stop")
    assert chunks[-1].usage.completion_tokens == 8 and chunks[-1].choices == []
    equal(len({chunk.id for chunk in chunks}), 1)
    return equal("".join(c.choices[0].delta.content or "" for c in chunks if c.choices), EIGHT)


@scenario
def unicode_in_single_bytes(c):
    text = "".join(chunk.choices[0].delta.content or "" for chunk in c.ask("[[unicode cut=1]]", stream=True) if chunk.choices)
    return equal(text, "größe 東京 🌍🚀 naïve данные 𝒳é größe 東京")


@scenario
def compressed(c):
    text = "".join(chunk.choices[0].delta.content or "" for chunk in c.ask("[[gzip]]", stream=True) if chunk.choices)
    return equal(text, EIGHT)


@scenario
def system_prompt(c):
    reply = c.ask("", messages=[{"role": "system", "content": "Be brief."}, {"role": "user", "content": "[[echo]]"}])
    return equal(json.loads(reply.choices[0].message.content)["system"], "Be brief.")


@scenario
def settings(c):
    reply = c.ask("[[echo]]", temperature=0.5, top_p=0.9, stop=["END"], max_completion_tokens=99)
    echo = json.loads(reply.choices[0].message.content)
    equal(echo["stops"], ["END"])
    equal(echo["max_tokens"], 99)
    return equal(echo["settings"]["temperature"], 0.5)


@scenario
def images(c):
    content = [{"type": "text", "text": "[[echo]]"}, {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{PNG}"}}]
    reply = c.ask("", messages=[{"role": "user", "content": content}])
    return equal(json.loads(reply.choices[0].message.content)["media"], ["image/png:70"])


def results(c, calls):
    messages = [{"role": "user", "content": "[[tool=weather]]"}, {"role": "assistant", "tool_calls": calls}]
    messages += [{"role": "tool", "tool_call_id": call["id"], "content": f"sun {number}"} for number, call in enumerate(calls)]
    return c.ask("", messages=messages, tools=[TOOL, OTHER]).choices[0].message.content


@scenario
def tool(c):
    reply = c.ask("[[tool=weather]]", tools=[TOOL, OTHER])
    equal(reply.choices[0].finish_reason, "tool_calls")
    call = reply.choices[0].message.tool_calls[0]
    equal(json.loads(call.function.arguments), {"city": "Paris"})
    return equal(results(c, [call.model_dump()]), "The tools said: sun 0")


@scenario
def tools_in_parallel(c):
    reply = c.ask("[[tool=weather,clock]]", tools=[TOOL, OTHER])
    calls = [call.model_dump() for call in reply.choices[0].message.tool_calls]
    equal([call["function"]["name"] for call in calls], ["weather", "clock"])
    return equal(results(c, calls), "The tools said: sun 0; sun 1")


@scenario
def tools_streamed(c):
    with c.client.chat.completions.stream(model=c.model, messages=[{"role": "user", "content": "[[tool=weather,clock unicode cut=3]]"}], tools=[TOOL, {**OTHER, "function": {**OTHER["function"], "strict": True, "parameters": {**OTHER["function"]["parameters"], "required": [], "additionalProperties": False}}}]) as stream:
        calls = stream.get_final_completion().choices[0].message.tool_calls
    return equal([(call.function.name, json.loads(call.function.arguments)) for call in calls], [("weather", {"city": "Zürich 東京 🌍"}), ("clock", {})])


@scenario
def tool_without_arguments(c):
    calls = c.ask("[[tool=clock empty_args]]", tools=[OTHER]).choices[0].message.tool_calls
    return equal(calls[0].function.arguments in ("", "{}"), True)


@scenario
def tool_forced(c):
    choice = {"type": "function", "function": {"name": "clock"}}
    calls = c.ask("hello", tools=[TOOL, OTHER], tool_choice=choice).choices[0].message.tool_calls
    return equal([call.function.name for call in calls], ["clock"])


@scenario
def structured(c):
    reply = c.client.chat.completions.parse(model=c.model, messages=[{"role": "user", "content": "hello"}], response_format=City)
    return equal(reply.choices[0].message.parsed.model_dump(), {"city": "Paris", "people": 7})


@scenario
def refusal(c):
    message = c.ask("[[refusal]]").choices[0].message
    return equal(message.refusal, "I cannot help with that.")


@scenario
def too_long(c):
    reply = c.ask("[[words=50]]", max_tokens=5)
    equal(reply.choices[0].message.content.split(), EIGHT.split()[:5])
    return equal(reply.choices[0].finish_reason, "length")


@scenario
def filtered(c):
    return equal(c.ask("[[filter]]").choices[0].finish_reason, "content_filter")


@scenario
def several_choices(c):
    return equal([choice.message.content for choice in c.ask("hello", n=2).choices], [EIGHT, EIGHT])


@scenario
def logprobs(c):
    content = c.ask("hello", logprobs=True, top_logprobs=1).choices[0].logprobs.content
    return equal("".join(token.token for token in content), EIGHT)


@scenario
def usage_in_detail(c):
    usage = c.ask("[[cached=100 reasoning=50]]", reasoning_effort="low").usage
    equal(usage.completion_tokens_details.reasoning_tokens, 50)
    return equal(usage.prompt_tokens_details.cached_tokens, 100)


@scenario
def azure_chunks(c):
    chunks = list(c.ask("[[azure]]", stream=True))
    equal(chunks[0].choices, [])
    return equal("".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices and chunk.choices[0].delta), EIGHT)


@scenario
def error_400(c):
    error = raises(openai.BadRequestError, lambda: c.ask("hello", messages=[{"role": "tool", "content": "x", "tool_call_id": "none"}]))
    assert "tool" in error.message, error.message
    return error.message


@scenario
def error_401(c):
    other = c.client.with_options(api_key="wrong-key")
    error = raises(openai.AuthenticationError, lambda: other.chat.completions.create(model=c.model, messages=[{"role": "user", "content": "x"}]))
    return equal(error.code, "invalid_api_key")


@scenario
def error_429(c):
    error = raises(openai.RateLimitError, lambda: c.ask("[[status=429 retry_after=7]]"))
    return equal(error.response.headers["retry-after"], "7")


@scenario
def error_500(c):
    return equal(raises(openai.InternalServerError, lambda: c.ask("[[status=500]]")).status_code, 500)


@scenario
def error_page(c):
    return equal(raises(openai.InternalServerError, lambda: c.ask("[[html status=502]]")).status_code, 502)


@scenario
def error_in_stream(c):
    return type(raises(openai.APIError, lambda: list(c.ask("[[error_at=3]]", stream=True)))).__name__


@scenario
def retried(c):
    import uuid
    client = c.client.with_options(max_retries=2)
    text = f"[[status=500 times=1 say={uuid.uuid4()}]]"
    reply = client.chat.completions.create(model=c.model, messages=[{"role": "user", "content": text}])
    return equal(len(reply.choices[0].message.content), 36)


@scenario
def times_out(c):
    client = c.client.with_options(timeout=0.5)
    call = lambda: client.chat.completions.create(model=c.model, messages=[{"role": "user", "content": "[[hang=head]]"}])
    return type(raises(openai.APITimeoutError, call)).__name__


@scenario
def reset_in_stream(c):
    import httpx
    return type(raises((openai.APIConnectionError, httpx.HTTPError), lambda: list(c.ask("[[reset=3]]", stream=True)))).__name__


@scenario
def embeddings(c):
    reply = c.client.embeddings.create(model=c.model, input=["one", "two"], dimensions=4)
    return equal([len(item.embedding) for item in reply.data], [4, 4])


@scenario
def models(c):
    return equal(len(c.client.models.list().data) > 0, True)


@scenario
def responses_plain(c):
    reply = c.respond("hello", instructions="Be brief.")
    equal(reply.status, "completed")
    assert reply.usage.output_tokens == 8
    return equal(reply.output_text, EIGHT)


@scenario
def responses_streaming(c):
    events = list(c.respond("[[cut=1]]", stream=True))
    equal([event.sequence_number for event in events], list(range(len(events))))
    kinds = [event.type for event in events]
    equal(kinds[:4], ["response.created", "response.in_progress", "response.output_item.added", "response.content_part.added"])
    equal(kinds[-4:], ["response.output_text.done", "response.content_part.done", "response.output_item.done", "response.completed"])
    equal(events[-1].response.output_text, EIGHT)
    return equal("".join(event.delta for event in events if event.type == "response.output_text.delta"), EIGHT)


@scenario
def responses_system(c):
    return equal(json.loads(c.respond("[[echo]]", instructions="Be brief.").output_text)["system"], "Be brief.")


@scenario
def responses_images(c):
    content = [{"type": "input_text", "text": "[[echo]]"}, {"type": "input_image", "image_url": f"data:image/png;base64,{PNG}", "detail": "auto"}]
    return equal(json.loads(c.respond([{"role": "user", "content": content}]).output_text)["media"], ["image/png:70"])


@scenario
def responses_tool(c):
    first = c.respond("[[tool=weather]]", tools=[FLAT], store=False)
    call = first.output[0]
    equal(json.loads(call.arguments), {"city": "Paris"})
    items = [{"role": "user", "content": "[[tool=weather]]"}, call.model_dump(exclude_none=True), {"type": "function_call_output", "call_id": call.call_id, "output": "sun"}]
    return equal(c.respond(items, tools=[FLAT]).output_text, "The tools said: sun")


@scenario
def responses_tool_streamed(c):
    with c.client.responses.stream(model=c.model, input="[[tool=weather unicode cut=1]]", tools=[FLAT]) as stream:
        kinds = [event.type for event in stream]
        call = stream.get_final_response().output[0]
    assert "response.function_call_arguments.done" in kinds, kinds
    return equal(json.loads(call.arguments), {"city": "Zürich 東京 🌍"})


@scenario
def responses_arguments_in_done(c):
    events = list(c.respond("[[tool=weather args_in_done]]", tools=[FLAT], stream=True))
    done = [event for event in events if event.type == "response.function_call_arguments.done"]
    return equal(json.loads(done[0].arguments), {"city": "Paris"})


@scenario
def responses_structured(c):
    return equal(c.client.responses.parse(model=c.model, input="hello", text_format=City).output_parsed.model_dump(), {"city": "Paris", "people": 7})


@scenario
def responses_reasoning(c):
    reply = c.respond("[[thinking=5]]", reasoning={"effort": "low", "summary": "auto"}, store=False, include=["reasoning.encrypted_content"])
    item = reply.output[0]
    equal(item.type, "reasoning")
    assert item.encrypted_content, "nothing is encrypted"
    again = c.respond([{"role": "user", "content": "hi"}, item.model_dump(exclude_none=True), {"role": "assistant", "content": reply.output_text}, {"role": "user", "content": "on"}])
    equal(again.output_text, EIGHT)
    return equal(item.summary[0].text, "the gateway reads each event")


@scenario
def responses_too_long(c):
    reply = c.respond("[[words=50]]", max_output_tokens=16)
    equal(reply.status, "incomplete")
    return equal(reply.incomplete_details.reason, "max_output_tokens")


@scenario
def responses_chained(c):
    first = c.respond("[[tool=weather]]", tools=[FLAT])
    output = [{"type": "function_call_output", "call_id": first.output[0].call_id, "output": "rain"}]
    return equal(c.respond(output, tools=[FLAT], previous_response_id=first.id).output_text, "The tools said: rain")


@scenario
def responses_by_id(c):
    first = c.respond("hello")
    return equal(c.client.responses.retrieve(first.id).output_text, first.output_text)


@scenario
def responses_error_400(c):
    error = raises(openai.BadRequestError, lambda: c.respond([{"type": "function_call_output", "call_id": "none", "output": "x"}]))
    return error.message


@scenario
def responses_error_in_stream(c):
    # This one is an event like others to the SDK.
    last = list(c.respond("[[error_at=5]]", stream=True))[-1]
    return equal((last.type, last.code), ("error", "server_error"))


@scenario
def moderation(c):
    return equal(c.client.moderations.create(input="harm").results[0].flagged, True)


@scenario
def speech(c):
    return equal(len(c.client.audio.speech.create(model="tts-1", voice="alloy", input="hello").content), 20)


@scenario
def transcription(c):
    return equal(c.client.audio.transcriptions.create(model="whisper-1", file=("a.wav", b"RIFF")).text, EIGHT)


@scenario
def pictures(c):
    return equal(len(c.client.images.generate(model="gpt-image-1", prompt="a cat").data), 1)


play("python openai", Context)
