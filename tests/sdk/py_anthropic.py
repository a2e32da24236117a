"""anthropic for Python."""

import json
import uuid

import anthropic

from scenarios import EIGHT, PNG, WEATHER, equal, play, raises, scenario

TOOL = {"name": "weather", "description": "The weather", "input_schema": WEATHER}
OTHER = {"name": "clock", "input_schema": {"type": "object", "properties": {}}}


class Context:
    def __init__(self, options):
        self.model = options.model
        self.client = anthropic.Anthropic(base_url=options.base, api_key="key", max_retries=0, timeout=10)

    def body(self, content, **more):
        return {"model": self.model, "max_tokens": 4096, "messages": [{"role": "user", "content": content}], **more}

    def ask(self, content, **more):
        return self.client.messages.create(**self.body(content, **more))

    def final(self, content, **more):
        with self.client.messages.stream(**self.body(content, **more)) as stream:
            kinds = [event.type for event in stream]
            return stream.get_final_message(), kinds


@scenario
def plain(c):
    reply = c.ask("hello")
    equal((reply.stop_reason, reply.usage.output_tokens, reply.role), ("end_turn", 8, "assistant"))
    return equal(reply.content[0].text, EIGHT)


@scenario
def streaming(c):
    reply, kinds = c.final("[[cut=1]]")
    equal((kinds[0], kinds[-1], reply.stop_reason), ("message_start", "message_stop", "end_turn"))
    equal(reply.usage.output_tokens, 8)
    return equal(reply.content[0].text, EIGHT)


@scenario
def unicode_in_single_bytes(c):
    return equal(c.final("[[unicode cut=1]]")[0].content[0].text, "größe 東京 🌍🚀 naïve данные 𝒳é größe 東京")


@scenario
def compressed(c):
    return equal(c.final("[[gzip]]")[0].content[0].text, EIGHT)


@scenario
def system_prompt(c):
    system = [{"type": "text", "text": "Be brief.", "cache_control": {"type": "ephemeral"}}, {"type": "text", "text": "Be kind."}]
    return equal(json.loads(c.ask("[[echo]]", system=system).content[0].text)["system"], "Be brief.\nBe kind.")


@scenario
def settings(c):
    echo = json.loads(c.ask("[[echo]]", extra_body={"temperature": 0.5}, stop_sequences=["END"], metadata={"user_id": "u1"}).content[0].text)
    equal(echo["stops"], ["END"])
    equal(echo["max_tokens"], 4096)
    return equal(echo["settings"]["temperature"], 0.5)


@scenario
def images(c):
    content = [{"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": PNG}}, {"type": "text", "text": "[[echo]]"}]
    return equal(json.loads(c.ask(content).content[0].text)["media"], ["image/png:70"])


def results(c, reply, **more):
    outcome = [{"type": "tool_result", "tool_use_id": block.id, "content": "sun"} for block in reply.content if block.type == "tool_use"]
    messages = [{"role": "user", "content": "[[tool=weather]]"}, {"role": "assistant", "content": [block.model_dump(exclude_none=True) for block in reply.content]}, {"role": "user", "content": outcome}]
    last = c.client.messages.create(model=c.model, max_tokens=4096, messages=messages, tools=[TOOL, OTHER], **more)
    return last.content[-1].text


@scenario
def tool(c):
    reply = c.ask("[[tool=weather]]", tools=[TOOL, OTHER])
    equal((reply.stop_reason, reply.content[0].input), ("tool_use", {"city": "Paris"}))
    return equal(results(c, reply), "The tools said: sun")


@scenario
def tools_in_parallel(c):
    reply = c.ask("[[tool=weather,clock]]", tools=[TOOL, OTHER])
    equal([block.name for block in reply.content], ["weather", "clock"])
    return equal(results(c, reply), "The tools said: sun; sun")


@scenario
def one_tool_at_a_time(c):
    reply = c.ask("[[tool=weather,clock]]", tools=[TOOL, OTHER], tool_choice={"type": "auto", "disable_parallel_tool_use": True})
    return equal(len(reply.content), 1)


@scenario
def tools_streamed(c):
    reply, kinds = c.final("[[tool=weather,clock unicode cut=3]]", tools=[TOOL, OTHER])
    return equal([(block.name, block.input) for block in reply.content], [("weather", {"city": "Zürich 東京 🌍"}), ("clock", {})])


@scenario
def tool_without_arguments(c):
    return equal(c.final("[[tool=clock empty_args]]", tools=[OTHER])[0].content[0].input, {})


@scenario
def tool_forced(c):
    return equal([block.name for block in c.ask("x", tools=[TOOL, OTHER], tool_choice={"type": "tool", "name": "clock"}).content], ["clock"])


@scenario
def structured(c):
    config = {"format": {"type": "json_schema", "schema": WEATHER}}
    return equal(json.loads(c.ask("x", output_config=config).content[0].text), {"city": "Paris"})


THINKING = {"type": "enabled", "budget_tokens": 1024}


@scenario
def thinking(c):
    reply, kinds = c.final("[[thinking=5]]", thinking=THINKING)
    equal([block.type for block in reply.content], ["thinking", "text"])
    assert reply.content[0].signature, "the thought is not signed"
    return equal(reply.content[0].thinking, "the gateway reads each event")


@scenario
def thinking_with_tools(c):
    reply = c.ask("[[thinking=5 tool=weather]]", tools=[TOOL], thinking=THINKING)
    equal([block.type for block in reply.content], ["thinking", "tool_use"])
    return equal(results(c, reply, thinking=THINKING), "The tools said: sun")


@scenario
def too_long(c):
    return equal(c.ask("[[words=50]]", max_tokens=5).stop_reason, "max_tokens")


@scenario
def stop_sequence(c):
    reply = c.ask('[[say="one END two"]]', stop_sequences=["END"])
    equal(reply.content[0].text, "one ")
    return equal((reply.stop_reason, reply.stop_sequence), ("stop_sequence", "END"))


@scenario
def refusal(c):
    return equal(c.ask("[[refusal]]").stop_reason, "refusal")


@scenario
def usage_in_detail(c):
    usage = c.ask("hello there [[cached=100 written=7]]").usage
    return equal((usage.cache_read_input_tokens, usage.cache_creation_input_tokens, usage.input_tokens), (100, 7, 4))


@scenario
def count_tokens(c):
    return equal(c.client.messages.count_tokens(model=c.model, messages=[{"role": "user", "content": "one two three"}]).input_tokens, 3)


@scenario
def models(c):
    return equal(len(c.client.models.list().data) > 0, True)


@scenario
def error_400(c):
    blocks = [{"type": "tool_result", "tool_use_id": "none", "content": "x"}]
    return raises(anthropic.BadRequestError, lambda: c.ask(blocks)).body["error"]["message"]


@scenario
def error_401(c):
    other = c.client.with_options(api_key="wrong-key")
    error = raises(anthropic.AuthenticationError, lambda: other.messages.create(**c.body("x")))
    return equal(error.body["error"]["type"], "authentication_error")


@scenario
def error_429(c):
    error = raises(anthropic.RateLimitError, lambda: c.ask("[[status=429 retry_after=7]]"))
    equal(error.body["error"]["type"], "rate_limit_error")
    return equal(error.response.headers["retry-after"], "7")


@scenario
def error_500(c):
    return equal(raises(anthropic.InternalServerError, lambda: c.ask("[[status=500]]")).status_code, 500)


@scenario
def error_page(c):
    return equal(raises(anthropic.InternalServerError, lambda: c.ask("[[html status=502]]")).status_code, 502)


@scenario
def error_in_stream(c):
    return type(raises(anthropic.APIStatusError, lambda: c.final("[[error_at=3]]"))).__name__


@scenario
def retried(c):
    client = c.client.with_options(max_retries=2)
    return equal(len(client.messages.create(**c.body(f"[[status=529 times=1 say={uuid.uuid4()}]]")).content[0].text), 36)


@scenario
def times_out(c):
    client = c.client.with_options(timeout=0.5)
    return type(raises(anthropic.APITimeoutError, lambda: client.messages.create(**c.body("[[hang=head]]")))).__name__


play("python anthropic", Context)
