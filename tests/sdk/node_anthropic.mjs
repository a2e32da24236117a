// @anthropic-ai/sdk.

import Anthropic from "@anthropic-ai/sdk";
import { EIGHT, PNG, WEATHER, WIDE, equal, collect, play, raises } from "./scenarios.mjs";

const TOOL = { name: "weather", input_schema: WEATHER };
const OTHER = { name: "clock", input_schema: { type: "object", properties: {} } };
const THINKING = { type: "enabled", budget_tokens: 1024 };

function make({ base, model }) {
  const client = new Anthropic({ baseURL: base, apiKey: "key", maxRetries: 0, timeout: 10000 });
  const body = (content, more = {}) => ({ model, max_tokens: 4096, messages: [{ role: "user", content }], ...more });
  return {
    client,
    model,
    body,
    ask: (content, more) => client.messages.create(body(content, more)),
    final: (content, more) => client.messages.stream(body(content, more)).finalMessage(),
  };
}

await play("node anthropic", make, {
  async plain({ ask }) {
    const reply = await ask("hello");
    equal([reply.stop_reason, reply.usage.output_tokens], ["end_turn", 8]);
    return equal(reply.content[0].text, EIGHT);
  },
  async streaming({ final }) {
    const reply = await final("[[cut=1]]");
    equal([reply.stop_reason, reply.usage.output_tokens], ["end_turn", 8]);
    return equal(reply.content[0].text, EIGHT);
  },
  async events({ client, body }) {
    const events = await collect(await client.messages.create(body("hello", { stream: true })));
    return equal([events[0].type, events.at(-1).type], ["message_start", "message_stop"]);
  },
  async unicode_in_single_bytes({ final }) {
    return equal((await final("[[unicode cut=1]]")).content[0].text, WIDE);
  },
  async compressed({ final }) {
    return equal((await final("[[gzip]]")).content[0].text, EIGHT);
  },
  async lines_in_crlf_with_comments({ final }) {
    return equal((await final("[[crlf comments cut=7]]")).content[0].text, EIGHT);
  },
  async system_prompt({ ask }) {
    return equal(JSON.parse((await ask("[[echo]]", { system: "Be brief." })).content[0].text).system, "Be brief.");
  },
  async images({ ask }) {
    const content = [
      { type: "image", source: { type: "base64", media_type: "image/png", data: PNG } },
      { type: "text", text: "[[echo]]" },
    ];
    return equal(JSON.parse((await ask(content)).content[0].text).media, ["image/png:70"]);
  },
  async tools({ client, ask, body }) {
    const tools = [TOOL, OTHER];
    const first = await ask("[[tool=weather,clock]]", { tools });
    equal(first.content.map((block) => [block.name, block.input]), [["weather", { city: "Paris" }], ["clock", {}]]);
    const results = first.content.map((block) => ({ type: "tool_result", tool_use_id: block.id, content: "sun" }));
    const messages = [...body("[[tool=weather,clock]]").messages, { role: "assistant", content: first.content }, { role: "user", content: results }];
    return equal((await ask("", { tools, messages })).content[0].text, "The tools said: sun; sun");
  },
  async tools_streamed({ final }) {
    const reply = await final("[[tool=weather,clock unicode cut=3]]", { tools: [TOOL, OTHER] });
    return equal(reply.content.map((block) => block.input), [{ city: "Zürich 東京 🌍" }, {}]);
  },
  async thinking({ final }) {
    const reply = await final("[[thinking=3]]", { thinking: THINKING });
    equal(typeof reply.content[0].signature, "string");
    return equal(reply.content[0].thinking, "the gateway reads");
  },
  async structured({ ask }) {
    const reply = await ask("x", { output_config: { format: { type: "json_schema", schema: WEATHER } } });
    return equal(JSON.parse(reply.content[0].text), { city: "Paris" });
  },
  async count_tokens({ client, model }) {
    const messages = [{ role: "user", content: "one two three" }];
    return equal((await client.messages.countTokens({ model, messages })).input_tokens, 3);
  },
  async models({ client }) {
    return equal((await collect(client.models.list())).length > 0, true);
  },
  async error_400({ ask }) {
    const blocks = [{ type: "tool_result", tool_use_id: "none", content: "x" }];
    return (await raises(Anthropic.BadRequestError, () => ask(blocks))).message;
  },
  async error_401({ client, body }) {
    const other = client.withOptions({ apiKey: "wrong-key" });
    return (await raises(Anthropic.AuthenticationError, () => other.messages.create(body("x")))).message;
  },
  async error_429({ ask }) {
    const error = await raises(Anthropic.RateLimitError, () => ask("[[status=429 retry_after=7]]"));
    return equal(error.headers.get("retry-after"), "7");
  },
  async error_500({ ask }) {
    return equal((await raises(Anthropic.InternalServerError, () => ask("[[status=500]]"))).status, 500);
  },
  async error_in_stream({ final }) {
    return (await raises(Anthropic.APIError, () => final("[[error_at=3]]"))).message;
  },
  async times_out({ client, body }) {
    return (await raises(Anthropic.APIConnectionTimeoutError, () => client.messages.create(body("[[hang=head]]"), { timeout: 500 }))).message;
  },
});
