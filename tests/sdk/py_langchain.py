"""LangChain over each dialect."""

import json

from langchain_anthropic import ChatAnthropic
from langchain_core.messages import HumanMessage, SystemMessage, ToolMessage
from langchain_core.tools import tool as as_tool
from langchain_google_genai import ChatGoogleGenerativeAI
from langchain_openai import ChatOpenAI, OpenAIEmbeddings
from pydantic import BaseModel

from scenarios import EIGHT, PNG, equal, play, scenario


class City(BaseModel):
    """A city."""

    city: str
    people: int


@as_tool
def weather(city: str) -> str:
    """The weather of a city."""
    return f"sun in {city}"


class Context:
    def __init__(self, options):
        name, base = options.model, options.base
        self.base, self.name = base, name
        self.models = {
            "chat": ChatOpenAI(model=name, base_url=f"{base}/v1", api_key="key", max_retries=0, stream_usage=True),
            "responses": ChatOpenAI(model=name, base_url=f"{base}/v1", api_key="key", max_retries=0, use_responses_api=True),
            "anthropic": ChatAnthropic(model=name, base_url=base, api_key="key", max_retries=0, max_tokens=4096),
            "gemini": ChatGoogleGenerativeAI(model=name, base_url=base, google_api_key="key", max_retries=1),
        }

    def each(self, work):
        return {name: work(model) for name, model in self.models.items()}


def same(seen, expected):
    return equal(seen, {name: expected for name in seen})


@scenario
def plain(c):
    return same(c.each(lambda model: model.invoke("hello").text), EIGHT)


@scenario
def streaming(c):
    return same(c.each(lambda model: "".join(chunk.text for chunk in model.stream("[[cut=1]]"))), EIGHT)


@scenario
def usage(c):
    def tokens(model):
        whole = None
        for chunk in model.stream("one two three"):
            whole = chunk if whole is None else whole + chunk
        return (whole.usage_metadata["input_tokens"], whole.usage_metadata["output_tokens"])

    return same(c.each(tokens), (3, 8))


@scenario
def system_prompt(c):
    def ask(model):
        return json.loads(model.invoke([SystemMessage("Be brief."), HumanMessage("[[echo]]")]).text)["system"]

    return same(c.each(ask), "Be brief.")


@scenario
def images(c):
    content = [{"type": "text", "text": "[[echo]]"}, {"type": "image", "base64": PNG, "mime_type": "image/png"}]
    return same(c.each(lambda model: json.loads(model.invoke([HumanMessage(content)]).text)["media"]), ["image/png:70"])


@scenario
def tool(c):
    def ask(model):
        able = model.bind_tools([weather])
        question = HumanMessage("[[tool=weather]]")
        reply = able.invoke([question])
        answers = [ToolMessage(weather.invoke(call["args"]), tool_call_id=call["id"], name=call["name"]) for call in reply.tool_calls]
        return able.invoke([question, reply, *answers]).text

    return same(c.each(ask), "The tools said: sun in Paris")


@scenario
def tool_streamed(c):
    def ask(model):
        whole = None
        for chunk in model.bind_tools([weather]).stream("[[tool=weather unicode cut=1]]"):
            whole = chunk if whole is None else whole + chunk
        return [(call["name"], call["args"]) for call in whole.tool_calls]

    return same(c.each(ask), [("weather", {"city": "Zürich 東京 🌍"})])


@scenario
def structured(c):
    return same(c.each(lambda model: model.with_structured_output(City).invoke("x").model_dump()), {"city": "Paris", "people": 7})


@scenario
def errors(c):
    def kind(model):
        try:
            model.invoke("[[status=429]]")
        except Exception as error:
            return type(error).__name__
        return "nothing"

    seen = c.each(kind)
    assert "nothing" not in seen.values(), seen
    return seen


@scenario
def embeddings(c):
    model = OpenAIEmbeddings(model=c.name, base_url=f"{c.base}/v1", api_key="key", check_embedding_ctx_length=False)
    return equal(len(model.embed_documents(["one", "two"])), 2)


play("python langchain", Context)
