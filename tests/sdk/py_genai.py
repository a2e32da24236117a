"""google-genai for Python."""

import base64
import json
import uuid

from google import genai
from google.genai import errors, types
from pydantic import BaseModel

from scenarios import EIGHT, PNG, WEATHER, equal, play, raises, scenario


class City(BaseModel):
    city: str
    people: int


class Context:
    def __init__(self, options):
        self.model = options.model
        self.client = self.make(options.base, "key")
        self.base = options.base

    def make(self, base, key, **more):
        return genai.Client(api_key=key, http_options=types.HttpOptions(base_url=base, **{"timeout": 10_000, **more}))

    def ask(self, contents, **config):
        return self.client.models.generate_content(model=self.model, contents=contents, config=config or None)

    def stream(self, contents, **config):
        return list(self.client.models.generate_content_stream(model=self.model, contents=contents, config=config or None))


def schema():
    return {"type": "OBJECT", "properties": {"city": {"type": "STRING"}}, "required": ["city"]}


TOOLS = [{"function_declarations": [
    {"name": "weather", "description": "The weather", "parameters": schema()},
    {"name": "clock", "parameters_json_schema": {"type": "object", "properties": {}}},
]}]


@scenario
def plain(c):
    reply = c.ask("hello")
    equal(reply.candidates[0].finish_reason.value, "STOP")
    equal(reply.usage_metadata.candidates_token_count, 8)
    return equal(reply.text, EIGHT)


@scenario
def streaming(c):
    chunks = c.stream("[[cut=1]]")
    equal(chunks[-1].candidates[0].finish_reason.value, "STOP")
    equal(chunks[-1].usage_metadata.candidates_token_count, 8)
    return equal("".join(chunk.text or "" for chunk in chunks), EIGHT)


@scenario
def unicode_in_single_bytes(c):
    return equal("".join(chunk.text or "" for chunk in c.stream("[[unicode cut=1]]")), "größe 東京 🌍🚀 naïve данные 𝒳é größe 東京")


@scenario
def compressed(c):
    return equal("".join(chunk.text or "" for chunk in c.stream("[[gzip]]")), EIGHT)


@scenario
def system_prompt(c):
    return equal(json.loads(c.ask("[[echo]]", system_instruction="Be brief.").text)["system"], "Be brief.")


@scenario
def settings(c):
    echo = json.loads(c.ask("[[echo]]", temperature=0.5, top_p=0.9, stop_sequences=["END"], max_output_tokens=99).text)
    equal((echo["stops"], echo["max_tokens"]), (["END"], 99))
    return equal(echo["settings"]["temperature"], 0.5)


@scenario
def images(c):
    part = types.Part.from_bytes(data=base64.b64decode(PNG), mime_type="image/png")
    return equal(json.loads(c.ask([part, "[[echo]]"]).text)["media"], ["image/png:70"])


def results(c, reply, **config):
    user = types.Content(role="user", parts=[types.Part(text="[[tool=weather]]")])
    answers = [types.Part.from_function_response(name=call.name, response={"result": "sun"}) for call in reply.function_calls]
    return c.ask([user, reply.candidates[0].content, types.Content(role="user", parts=answers)], tools=TOOLS, **config).text


@scenario
def tool(c):
    reply = c.ask("[[tool=weather]]", tools=TOOLS)
    equal([(call.name, call.args) for call in reply.function_calls], [("weather", {"city": "Paris"})])
    return equal(results(c, reply), "The tools said: sun")


@scenario
def tools_in_parallel(c):
    reply = c.ask("[[tool=weather,clock]]", tools=TOOLS)
    equal([call.name for call in reply.function_calls], ["weather", "clock"])
    return equal(results(c, reply), "The tools said: sun; sun")


@scenario
def tools_streamed(c):
    calls = [call for chunk in c.stream("[[tool=weather,clock unicode cut=3]]", tools=TOOLS) for call in chunk.function_calls or []]
    return equal([(call.name, call.args) for call in calls], [("weather", {"city": "Zürich 東京 🌍"}), ("clock", {})])


@scenario
def tool_called_by_the_sdk(c):
    def weather(city: str) -> str:
        """The weather of a city."""
        return f"sun in {city}"

    return equal(c.ask("[[tool=weather]]", tools=[weather]).text, "The tools said: sun in Paris")


@scenario
def tool_forced(c):
    config = {"function_calling_config": {"mode": "ANY", "allowed_function_names": ["clock"]}}
    return equal([call.name for call in c.ask("x", tools=TOOLS, tool_config=config).function_calls], ["clock"])


@scenario
def structured(c):
    reply = c.ask("x", response_mime_type="application/json", response_schema=City)
    return equal(reply.parsed.model_dump(), {"city": "Paris", "people": 7})


@scenario
def structured_by_json_schema(c):
    reply = c.ask("x", response_mime_type="application/json", response_json_schema=WEATHER)
    return equal(json.loads(reply.text), {"city": "Paris"})


@scenario
def thinking(c):
    reply = c.ask("[[thinking=5]]", thinking_config={"include_thoughts": True, "thinking_budget": 1024})
    thoughts = [part.text for part in reply.candidates[0].content.parts if part.thought]
    equal(reply.usage_metadata.thoughts_token_count, 5)
    return equal(thoughts, ["the gateway reads each event"])


@scenario
def thinking_with_tools(c):
    config = {"thinking_config": {"include_thoughts": True}}
    reply = c.ask("[[thinking=5 tool=weather]]", tools=TOOLS, **config)
    call = [part for part in reply.candidates[0].content.parts if part.function_call][0]
    assert call.thought_signature, "the call is not signed"
    return equal(results(c, reply, **config), "The tools said: sun")


@scenario
def too_long(c):
    return equal(c.ask("[[words=50]]", max_output_tokens=5).candidates[0].finish_reason.value, "MAX_TOKENS")


@scenario
def blocked(c):
    reply = c.ask("[[filter]]")
    assert not reply.candidates, "there are candidates"
    return equal(reply.prompt_feedback.block_reason.value, "PROHIBITED_CONTENT")


@scenario
def usage_in_detail(c):
    usage = c.ask("hello [[cached=100]]").usage_metadata
    return equal(usage.cached_content_token_count, 100)


@scenario
def count_tokens(c):
    return equal(c.client.models.count_tokens(model=c.model, contents="one two three").total_tokens, 3)


@scenario
def embeddings(c):
    reply = c.client.models.embed_content(model=c.model, contents=["one", "two"], config={"output_dimensionality": 4})
    return equal([len(one.values) for one in reply.embeddings], [4, 4])


@scenario
def models(c):
    return equal(len(list(c.client.models.list())) > 0, True)


@scenario
def error_400(c):
    part = types.Part.from_function_response(name="weather", response={"result": "sun"})
    error = raises(errors.ClientError, lambda: c.ask([types.Content(role="user", parts=[part])]))
    return equal((error.code, error.status), (400, "INVALID_ARGUMENT"))


@scenario
def error_of_the_key(c):
    client = c.make(c.base, "wrong-key")
    error = raises(errors.ClientError, lambda: client.models.generate_content(model=c.model, contents="x"))
    return error.code


@scenario
def error_429(c):
    error = raises(errors.ClientError, lambda: c.ask("[[status=429 retry_after=7]]"))
    return equal((error.code, error.status), (429, "RESOURCE_EXHAUSTED"))


@scenario
def error_500(c):
    return equal(raises(errors.ServerError, lambda: c.ask("[[status=500]]")).code, 500)


@scenario
def error_page(c):
    return equal(raises(errors.ServerError, lambda: c.ask("[[html status=502]]")).code, 502)


@scenario
def error_in_stream(c):
    return equal(raises(errors.ServerError, lambda: c.stream("[[error_at=3]]")).code, 503)


@scenario
def retried(c):
    client = c.make(c.base, "key", retry_options=types.HttpRetryOptions(attempts=3, initial_delay=0.05))
    return equal(len(client.models.generate_content(model=c.model, contents=f"[[status=503 times=1 say={uuid.uuid4()}]]").text), 36)


@scenario
def times_out(c):
    client = c.make(c.base, "key", timeout=500)
    return type(raises(Exception, lambda: client.models.generate_content(model=c.model, contents="[[hang=head]]"))).__name__


play("python google-genai", Context)
