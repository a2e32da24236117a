// openai for Node: Chat Completions and Responses.

import OpenAI from "openai";
import { zodResponseFormat } from "openai/helpers/zod";
import { z } from "zod";
import { EIGHT, PNG, WEATHER, WIDE, collect, equal, play, raises } from "./scenarios.mjs";

const TOOL = { type: "function", function: { name: "weather", parameters: WEATHER, strict: true } };
const OTHER = { type: "function", function: { name: "clock", parameters: { type: "object", properties: {} } } };
const FLAT = { type: "function", name: "weather", parameters: WEATHER, strict: true };
const user = (content) => [{ role: "user", content }];
const joined = (chunks) => chunks.map((chunk) => chunk.choices[0]?.delta?.content ?? "").join("");

function make({ base, model }) {
  const client = new OpenAI({ baseURL: `${base}/v1`, apiKey: "key", maxRetries: 0, timeout: 10000 });
  return {
    client,
    model,
    ask: (content, more = {}) => client.chat.completions.create({ model, messages: user(content), ...more }),
    respond: (input, more = {}) => client.responses.create({ model, input, ...more }),
  };
}

await play("node openai", make, {
  async plain({ ask }) {
    const reply = await ask("hello");
    equal([reply.choices[0].finish_reason, reply.usage.completion_tokens], ["stop", 8]);
    return equal(reply.choices[0].message.content, EIGHT);
  },
  async streaming({ ask }) {
    const chunks = await collect(await ask("[[cut=1]]", { stream: true, stream_options: { include_usage: true } }));
    equal(chunks.at(-1).usage.completion_tokens, 8);
    return equal(joined(chunks), EIGHT);
  },
  async unicode_in_single_bytes({ ask }) {
    return equal(joined(await collect(await ask("[[unicode cut=1]]", { stream: true }))), WIDE);
  },
  async compressed({ ask }) {
    return equal(joined(await collect(await ask("[[gzip]]", { stream: true }))), EIGHT);
  },
  async lines_in_crlf_with_comments({ ask }) {
    return equal(joined(await collect(await ask("[[crlf comments cut=7]]", { stream: true }))), EIGHT);
  },
  async system_prompt({ ask }) {
    const messages = [{ role: "system", content: "Be brief." }, ...user("[[echo]]")];
    return equal(JSON.parse((await ask("", { messages })).choices[0].message.content).system, "Be brief.");
  },
  async images({ ask }) {
    const content = [
      { type: "text", text: "[[echo]]" },
      { type: "image_url", image_url: { url: `data:image/png;base64,${PNG}` } },
    ];
    return equal(JSON.parse((await ask(content)).choices[0].message.content).media, ["image/png:70"]);
  },
  async tools_run_by_the_sdk({ client, model }) {
    const run = (name, answer) => ({
      type: "function",
      function: { name, parse: JSON.parse, function: answer, parameters: name === "clock" ? OTHER.function.parameters : WEATHER },
    });
    const runner = client.chat.completions.runTools({
      model,
      messages: user("[[tool=weather,clock]]"),
      tools: [run("weather", ({ city }) => `sun in ${city}`), run("clock", () => "noon")],
    });
    return equal(await runner.finalContent(), "The tools said: sun in Paris; noon");
  },
  async tools_streamed({ client, model }) {
    const stream = client.chat.completions.stream({ model, messages: user("[[tool=weather,clock unicode cut=3]]"), tools: [TOOL, OTHER] });
    const calls = (await stream.finalChatCompletion()).choices[0].message.tool_calls;
    return equal(calls.map((call) => [call.function.name, JSON.parse(call.function.arguments)]), [
      ["weather", { city: "Zürich 東京 🌍" }],
      ["clock", {}],
    ]);
  },
  async structured({ client, model }) {
    const response_format = zodResponseFormat(z.object({ city: z.string(), people: z.number() }), "city");
    const reply = await client.chat.completions.parse({ model, messages: user("x"), response_format });
    return equal(reply.choices[0].message.parsed, { city: "Paris", people: 1.5 });
  },
  async refusal({ ask }) {
    return equal((await ask("[[refusal]]")).choices[0].message.refusal, "I cannot help with that.");
  },
  async error_400({ ask }) {
    const messages = [{ role: "tool", content: "x", tool_call_id: "none" }];
    return (await raises(OpenAI.BadRequestError, () => ask("", { messages }))).message;
  },
  async error_401({ client, model }) {
    const other = client.withOptions({ apiKey: "wrong-key" });
    const error = await raises(OpenAI.AuthenticationError, () => other.chat.completions.create({ model, messages: user("x") }));
    return equal(error.code, "invalid_api_key");
  },
  async error_429({ ask }) {
    const error = await raises(OpenAI.RateLimitError, () => ask("[[status=429 retry_after=7]]"));
    return equal(error.headers.get("retry-after"), "7");
  },
  async error_500({ ask }) {
    return equal((await raises(OpenAI.InternalServerError, () => ask("[[status=500]]"))).status, 500);
  },
  async error_in_stream({ ask }) {
    return (await raises(OpenAI.APIError, async () => collect(await ask("[[error_at=3]]", { stream: true })))).message;
  },
  async reset_in_stream({ ask }) {
    return (await raises(Error, async () => collect(await ask("[[reset=3]]", { stream: true })))).message;
  },
  async times_out({ client, model }) {
    const body = { model, messages: user("[[hang=head]]") };
    return (await raises(OpenAI.APIConnectionTimeoutError, () => client.chat.completions.create(body, { timeout: 500 }))).message;
  },
  async embeddings({ client, model }) {
    // The SDK asks for base64 and decodes it.
    const reply = await client.embeddings.create({ model, input: ["one", "two"], dimensions: 4 });
    return equal(reply.data.map((one) => one.embedding.length), [4, 4]);
  },
  async models({ client }) {
    return equal((await collect(client.models.list())).length > 0, true);
  },
  async responses_plain({ respond }) {
    return equal((await respond("hello", { instructions: "Be brief." })).output_text, EIGHT);
  },
  async responses_streaming({ respond }) {
    const events = await collect(await respond("[[cut=1]]", { stream: true }));
    equal(events.map((event) => event.sequence_number), [...events.keys()]);
    equal([events[0].type, events.at(-1).type], ["response.created", "response.completed"]);
    return equal(events.filter((event) => event.type === "response.output_text.delta").map((event) => event.delta).join(""), EIGHT);
  },
  async responses_tool({ respond }) {
    const first = await respond("[[tool=weather]]", { tools: [FLAT] });
    const call = first.output[0];
    const input = [...[{ role: "user", content: "[[tool=weather]]" }], call, { type: "function_call_output", call_id: call.call_id, output: "sun" }];
    return equal((await respond(input, { tools: [FLAT] })).output_text, "The tools said: sun");
  },
  async responses_tool_streamed({ client, model }) {
    const stream = client.responses.stream({ model, input: "[[tool=weather unicode cut=1]]", tools: [FLAT] });
    return equal(JSON.parse((await stream.finalResponse()).output[0].arguments), { city: "Zürich 東京 🌍" });
  },
  async responses_reasoning({ respond }) {
    const more = { reasoning: { effort: "low", summary: "auto" }, store: false, include: ["reasoning.encrypted_content"] };
    const reply = await respond("[[thinking=3]]", more);
    equal(typeof reply.output[0].encrypted_content, "string");
    return equal(reply.output[0].summary[0].text, "the gateway reads");
  },
});
