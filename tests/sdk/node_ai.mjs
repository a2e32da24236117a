// ai (the AI SDK) over each dialect: the same code, another provider.

import { createAnthropic } from "@ai-sdk/anthropic";
import { createGoogleGenerativeAI } from "@ai-sdk/google";
import { createOpenAI } from "@ai-sdk/openai";
import { APICallError, generateObject, generateText, stepCountIs, streamText, tool } from "ai";
import { z } from "zod";
import { EIGHT, PNG, WIDE, equal, play, raises } from "./scenarios.mjs";

globalThis.AI_SDK_LOG_WARNINGS = false; // Standard output is for scenarios.
const city = z.object({ city: z.string() });
const tools = { weather: tool({ description: "The weather", inputSchema: city, execute: async ({ city }) => `sun in ${city}` }) };

function make({ base, model }) {
  const openai = createOpenAI({ baseURL: `${base}/v1`, apiKey: "key" });
  const models = {
    chat: openai.chat(model),
    responses: openai.responses(model),
    anthropic: createAnthropic({ baseURL: `${base}/v1`, apiKey: "key" })(model),
    gemini: createGoogleGenerativeAI({ baseURL: `${base}/v1beta`, apiKey: "key" })(model),
  };
  const each = async (work, expected) => {
    for (const [name, model] of Object.entries(models)) {
      try {
        const seen = await work(model);
        if (expected !== undefined) equal(seen, expected);
      } catch (error) {
        throw new Error(`${name}: ${error?.name} ${error?.message}`);
      }
    }
    return expected ?? "each";
  };
  return { each };
}

/** A stream's text; what fails under way comes as a part of it. */
async function text(model, prompt, more = {}) {
  const stream = streamText({ model, prompt, maxRetries: 0, onError: () => {}, ...more });
  let all = "";
  for await (const part of stream.fullStream) {
    if (part.type === "error") throw part.error;
    if (part.type === "text-delta") all += part.text;
  }
  return all;
}

await play("node ai", make, {
  plain: ({ each }) => each(async (model) => (await generateText({ model, prompt: "hello", maxRetries: 0 })).text, EIGHT),
  usage: ({ each }) => each(async (model) => {
    const { usage } = await generateText({ model, prompt: "one two three", maxRetries: 0 });
    return [usage.inputTokens, usage.outputTokens];
  }, [3, 8]),
  streaming: ({ each }) => each((model) => text(model, "[[cut=1]]"), EIGHT),
  unicode_in_single_bytes: ({ each }) => each((model) => text(model, "[[unicode cut=1]]"), WIDE),
  system_prompt: ({ each }) => each(async (model) => {
    const reply = await generateText({ model, system: "Be brief.", prompt: "[[echo]]", maxRetries: 0 });
    return JSON.parse(reply.text).system;
  }, "Be brief."),
  images: ({ each }) => each(async (model) => {
    const content = [{ type: "text", text: "[[echo]]" }, { type: "image", image: PNG, mediaType: "image/png" }];
    const reply = await generateText({ model, messages: [{ role: "user", content }], maxRetries: 0 });
    return JSON.parse(reply.text).media;
  }, ["image/png:70"]),
  tools: ({ each }) => each(async (model) => {
    const reply = await generateText({ model, tools, prompt: "[[tool=weather]]", stopWhen: stepCountIs(3), maxRetries: 0 });
    return reply.text;
  }, "The tools said: sun in Paris"),
  tools_streamed: ({ each }) => each(
    (model) => text(model, "[[tool=weather cut=3]]", { tools, stopWhen: stepCountIs(3) }),
    "The tools said: sun in Paris",
  ),
  structured: ({ each }) => each(
    async (model) => (await generateObject({ model, schema: city, prompt: "x", maxRetries: 0 })).object,
    { city: "Paris" },
  ),
  error_429: ({ each }) => each(async (model) => {
    const error = await raises(APICallError, () => generateText({ model, prompt: "[[status=429 retry_after=7]]", maxRetries: 0 }));
    return [error.statusCode, error.responseHeaders["retry-after"], error.isRetryable];
  }, [429, "7", true]),
  error_in_stream: ({ each }) => each(async (model) => {
    await raises(Object, () => text(model, "[[error_at=5]]"));
  }),
});
