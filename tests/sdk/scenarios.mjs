// What all scripts of Node share: the table of scenarios, and a line of JSON for each.

import { isDeepStrictEqual, parseArgs } from "node:util";

// 1 x 1 pixel.
export const PNG =
  "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNkYPhfDwAChwGA60e6kgAAAABJRU5ErkJggg==";
export const WEATHER = {
  type: "object",
  properties: { city: { type: "string" } },
  required: ["city"],
  additionalProperties: false,
};
export const EIGHT = "the gateway reads each event once and keeps";
export const WIDE = "größe 東京 🌍🚀 naïve данные 𝒳é größe 東京";

export function equal(seen, expected) {
  if (!isDeepStrictEqual(seen, expected)) {
    throw new Error(`${JSON.stringify(seen)} is not ${JSON.stringify(expected)}`);
  }
  return seen;
}

/** What a call has to be refused with. */
export async function raises(kind, call) {
  try {
    await call();
  } catch (error) {
    if (error instanceof kind) return error;
    throw new Error(`${error?.constructor?.name}: ${error?.message}, where ${kind.name} was expected`);
  }
  throw new Error(`${kind.name} was expected, and nothing was thrown`);
}

export async function collect(stream) {
  const all = [];
  for await (const each of stream) all.push(each);
  return all;
}

/** Plays all scenarios; each gets what `make` makes of the arguments. */
export async function play(sdk, make, scenarios) {
  const { values } = parseArgs({
    options: {
      base: { type: "string" },
      model: { type: "string", default: "mock" },
      provider: { type: "string", default: "same" },
      only: { type: "string", default: "" },
    },
  });
  const context = make(values);
  for (const [name, scenario] of Object.entries(scenarios)) {
    if (!name.includes(values.only)) continue;
    const begun = Date.now();
    let line;
    try {
      line = { ok: true, saw: await scenario(context) };
    } catch (error) {
      line = { ok: false, saw: `${error?.constructor?.name}: ${error?.message}` };
    }
    console.log(JSON.stringify({ sdk, name, ...line, ms: Date.now() - begun }));
  }
  process.exit(0); // Connections that are kept would hold the process.
}
