// @google/genai.

import { ApiError, GoogleGenAI } from "@google/genai";
import { EIGHT, PNG, WEATHER, WIDE, collect, equal, play, raises } from "./scenarios.mjs";

const TOOLS = [
  {
    functionDeclarations: [
      { name: "weather", parameters: { type: "OBJECT", properties: { city: { type: "STRING" } }, required: ["city"] } },
      { name: "clock", parametersJsonSchema: { type: "object", properties: {} } },
    ],
  },
];

function make({ base, model }) {
  const client = (apiKey, more) => new GoogleGenAI({ apiKey, httpOptions: { baseUrl: base, timeout: 10000, ...more } });
  const models = client("key").models;
  return {
    client,
    model,
    models,
    ask: (contents, config) => models.generateContent({ model, contents, config }),
    stream: async (contents, config) => collect(await models.generateContentStream({ model, contents, config })),
  };
}

const joined = (chunks) => chunks.map((chunk) => chunk.text ?? "").join("");

await play("node google-genai", make, {
  async plain({ ask }) {
    const reply = await ask("hello");
    equal([reply.candidates[0].finishReason, reply.usageMetadata.candidatesTokenCount], ["STOP", 8]);
    return equal(reply.text, EIGHT);
  },
  async streaming({ stream }) {
    const chunks = await stream("[[cut=1]]");
    equal(chunks.at(-1).usageMetadata.candidatesTokenCount, 8);
    return equal(joined(chunks), EIGHT);
  },
  async unicode_in_single_bytes({ stream }) {
    return equal(joined(await stream("[[unicode cut=1]]")), WIDE);
  },
  async compressed({ stream }) {
    return equal(joined(await stream("[[gzip]]")), EIGHT);
  },
  async system_prompt({ ask }) {
    return equal(JSON.parse((await ask("[[echo]]", { systemInstruction: "Be brief." })).text).system, "Be brief.");
  },
  async images({ ask }) {
    const parts = [{ inlineData: { mimeType: "image/png", data: PNG } }, { text: "[[echo]]" }];
    return equal(JSON.parse((await ask([{ role: "user", parts }])).text).media, ["image/png:70"]);
  },
  async tools({ ask }) {
    const config = { tools: TOOLS, thinkingConfig: { includeThoughts: true } };
    const question = { role: "user", parts: [{ text: "[[tool=weather,clock]]" }] };
    const first = await ask([question], config);
    equal(first.functionCalls.map((call) => [call.name, call.args]), [["weather", { city: "Paris" }], ["clock", {}]]);
    const parts = first.functionCalls.map((call) => ({ functionResponse: { name: call.name, response: { result: "sun" } } }));
    return equal((await ask([question, first.candidates[0].content, { role: "user", parts }], config)).text, "The tools said: sun; sun");
  },
  async tools_streamed({ stream }) {
    const chunks = await stream("[[tool=weather,clock unicode cut=3]]", { tools: TOOLS });
    return equal(chunks.flatMap((chunk) => chunk.functionCalls ?? []).map((call) => call.args), [{ city: "Zürich 東京 🌍" }, {}]);
  },
  async structured({ ask }) {
    const reply = await ask("x", { responseMimeType: "application/json", responseJsonSchema: WEATHER });
    return equal(JSON.parse(reply.text), { city: "Paris" });
  },
  async thinking({ ask }) {
    const reply = await ask("[[thinking=3]]", { thinkingConfig: { includeThoughts: true } });
    return equal(reply.candidates[0].content.parts.filter((part) => part.thought).map((part) => part.text), ["the gateway reads"]);
  },
  async count_tokens({ models, model }) {
    return equal((await models.countTokens({ model, contents: "one two three" })).totalTokens, 3);
  },
  async embeddings({ models, model }) {
    const reply = await models.embedContent({ model, contents: ["one", "two"], config: { outputDimensionality: 4 } });
    return equal(reply.embeddings.map((one) => one.values.length), [4, 4]);
  },
  async models({ models }) {
    return equal((await collect(await models.list())).length > 0, true);
  },
  async error_400({ ask }) {
    const parts = [{ functionResponse: { name: "weather", response: { result: "sun" } } }];
    return equal((await raises(ApiError, () => ask([{ role: "user", parts }]))).status, 400);
  },
  async error_429({ ask }) {
    return equal((await raises(ApiError, () => ask("[[status=429 retry_after=7]]"))).status, 429);
  },
  async error_500({ ask }) {
    return equal((await raises(ApiError, () => ask("[[status=500]]"))).status, 500);
  },
  async error_in_stream({ stream }) {
    return (await raises(Error, () => stream("[[error_at=3]]"))).message;
  },
  async times_out({ client, model }) {
    const { models } = client("key", { timeout: 500 });
    return (await raises(Error, () => models.generateContent({ model, contents: "[[hang=head]]" }))).message;
  },
});
